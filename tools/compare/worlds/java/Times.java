import java.time.Instant;

/**
 * POSIX times as exact decimals. Today's times are too large for a double to hold their nanoseconds, so a time is two integers:
 * seconds, and attoseconds (10⁻¹⁸ s), which hold every time that the protocol allows.
 */
final class Times {
    /** Digits allowed on either side of a time's point. */
    private static final int MAX_DIGITS = 18;
    private static final long ATTOS_IN_SECOND = 1_000_000_000_000_000_000L;
    private static final long ATTOS_IN_NANO = 1_000_000_000L;
    private static final long NANOS_IN_SECOND = 1_000_000_000L;
    /** A stamp further than this ahead of its receipt counts as the receipt. */
    private static final Skew MAX_LEAD = new Skew(true, 60, 0);

    private Times() {}

    /** Seconds since the epoch, and attoseconds. */
    record Time(long seconds, long attos) implements Comparable<Time> {
        /** The wall clock. */
        static Time now() {
            Instant now = Instant.now();
            return new Time(now.getEpochSecond(), now.getNano() * ATTOS_IN_NANO);
        }

        /** Reads 1–18 digits, optionally a point and 1–18 digits; null if it is something else. */
        static Time parse(String text) {
            int point = text.indexOf('.');
            String whole = point < 0 ? text : text.substring(0, point);
            String fraction = point < 0 ? "0" : text.substring(point + 1);
            if (!areDigits(whole) || !areDigits(fraction)) {
                return null;
            }
            long attos = Long.parseLong(fraction);
            for (int digits = fraction.length(); digits < MAX_DIGITS; digits++) {
                attos *= 10;
            }
            return new Time(Long.parseLong(whole), attos);
        }

        /** Nanoseconds since the epoch. */
        long nanos() {
            return seconds * NANOS_IN_SECOND + attos / ATTOS_IN_NANO;
        }

        private static boolean areDigits(String text) {
            return text.length() <= MAX_DIGITS && Grammar.isNumber(text);
        }

        Time minus(Time earlier) {
            long borrow = attos < earlier.attos ? 1 : 0;
            return new Time(seconds - earlier.seconds - borrow, attos - earlier.attos + borrow * ATTOS_IN_SECOND);
        }

        @Override
        public int compareTo(Time other) {
            return seconds != other.seconds ? Long.compare(seconds, other.seconds) : Long.compare(attos, other.attos);
        }
    }

    /** Receipt minus stamp, to the nanosecond, cut towards zero; negative never with a size of zero. */
    record Skew(boolean isNegative, long seconds, long nanos) {
        static Skew between(Time receipt, Time stamp) {
            boolean isNegative = receipt.compareTo(stamp) < 0;
            Time size = isNegative ? stamp.minus(receipt) : receipt.minus(stamp);
            long nanos = size.attos / ATTOS_IN_NANO;
            return new Skew(isNegative && (size.seconds > 0 || nanos > 0), size.seconds, nanos);
        }

        /** Reads what {@link #toString} writes, and nothing else. */
        static Skew parse(String text) {
            int point = text.length() - 10;
            if (point < 2 || text.charAt(point) != '.') {
                return null;
            }
            char sign = text.charAt(0);
            String whole = text.substring(1, point);
            String fraction = text.substring(point + 1);
            boolean isSpelledOtherwise = whole.length() > 1 && whole.charAt(0) == '0';
            if ((sign != '+' && sign != '-') || isSpelledOtherwise || !Time.areDigits(whole) || !Grammar.isNumber(fraction)) {
                return null;
            }
            Skew skew = new Skew(sign == '-', Long.parseLong(whole), Long.parseLong(fraction));
            return skew.isNegative && skew.seconds == 0 && skew.nanos == 0 ? null : skew;
        }

        boolean isBelow(Skew negative) {
            return isNegative && (seconds > negative.seconds || (seconds == negative.seconds && nanos > negative.nanos));
        }

        /** A sign always, whole seconds, a point, nine digits. */
        @Override
        public String toString() {
            String nineDigits = Long.toString(NANOS_IN_SECOND + nanos).substring(1);
            return (isNegative ? "-" : "+") + seconds + "." + nineDigits;
        }
    }

    /** What orders the records of one client, before their bytes do. */
    record Order(Time effective, Time stamp) implements Comparable<Order> {
        /**
         * The effective time is the stamp, or the receipt if the stamp is more than 60 s after it; null if the receipt would lie
         * before the epoch. The receipt is computed from the line alone, so every server finds the same.
         */
        static Order of(Time stamp, Skew skew) {
            if (!skew.isNegative) {
                return new Order(stamp, stamp);
            }
            Time receipt = stamp.minus(new Time(skew.seconds, skew.nanos * ATTOS_IN_NANO));
            if (receipt.seconds < 0) {
                return null;
            }
            return new Order(skew.isBelow(MAX_LEAD) ? receipt : stamp, stamp);
        }

        @Override
        public int compareTo(Order other) {
            int byEffective = effective.compareTo(other.effective);
            return byEffective != 0 ? byEffective : stamp.compareTo(other.stamp);
        }
    }
}
