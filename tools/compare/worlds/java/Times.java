import java.time.Instant;

/**
 * POSIX times as exact decimals. A double cannot hold the nanoseconds of current times. So a time
 * is two integers: seconds and attoseconds (10⁻¹⁸ s). They hold every time that the protocol
 * allows.
 */
final class Times {
    /** The greatest number of digits on either side of a time's point. */
    private static final int MAX_DIGITS = 18;
    private static final long ATTOS_IN_SECOND = 1_000_000_000_000_000_000L;
    private static final long ATTOS_IN_NANO = 1_000_000_000L;
    private static final long NANOS_IN_SECOND = 1_000_000_000L;
    /** A stamp counts as at most this much later than its receipt. */
    private static final long MAX_LEAD_SECONDS = 60;
    /**
     * A record further ahead of the server's clock comes from a server with a wrong clock. An
     * update replaces it.
     */
    private static final long MAX_AHEAD_SECONDS = 120;

    private Times() {}

    /** Seconds since 1970, and attoseconds. */
    record Time(long seconds, long attos) implements Comparable<Time> {
        /** The wall clock. */
        static Time now() {
            Instant now = Instant.now();
            return new Time(now.getEpochSecond(), now.getNano() * ATTOS_IN_NANO);
        }

        /**
         * Parses 1–18 digits, and optionally a point and 1–18 digits. Returns null for other text.
         */
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

        /** Nanoseconds since 1970. */
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

        Time plus(long more) {
            return new Time(seconds + more, attos);
        }

        @Override
        public int compareTo(Time other) {
            return seconds != other.seconds ? Long.compare(seconds, other.seconds) : Long.compare(attos, other.attos);
        }
    }

    /** Receipt minus stamp to the nanosecond, rounded towards zero. A zero is never negative. */
    record Skew(boolean isNegative, long seconds, long nanos) {
        static Skew between(Time receipt, Time stamp) {
            boolean isNegative = receipt.compareTo(stamp) < 0;
            Time size = isNegative ? stamp.minus(receipt) : receipt.minus(stamp);
            long nanos = size.attos / ATTOS_IN_NANO;
            return new Skew(isNegative && (size.seconds > 0 || nanos > 0), size.seconds, nanos);
        }

        /** Parses only the form that {@link #toString} writes. */
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

        /** A sign in any case, whole seconds, a point, nine digits. */
        @Override
        public String toString() {
            String nineDigits = Long.toString(NANOS_IN_SECOND + nanos).substring(1);
            return (isNegative ? "-" : "+") + seconds + "." + nineDigits;
        }
    }

    /**
     * The order of one client's records, before their bytes. The epoch is the number of this
     * client's records that were replaced because of a wrong clock.
     */
    record Order(long epoch, Time effective, Time stamp) implements Comparable<Order> {
        static final long MAX_EPOCH = 0xffff_ffffL;

        /**
         * The effective time is the stamp, or 60 s after the receipt if that is earlier. It has no
         * jump, so updates with a clock about a minute ahead are not lost. Null if the receipt is
         * before 1970. The receipt comes from the line alone, so every server gets the same.
         */
        static Order of(Time stamp, Skew skew) {
            if (!skew.isNegative) {
                return new Order(0, stamp, stamp);
            }
            Time receipt = stamp.minus(new Time(skew.seconds, skew.nanos * ATTOS_IN_NANO));
            if (receipt.seconds < 0) {
                return null;
            }
            Time latest = receipt.plus(MAX_LEAD_SECONDS);
            return new Order(0, latest.compareTo(stamp) < 0 ? latest : stamp, stamp);
        }

        /**
         * 1 if the stamp is more than a minute ahead of {@code now}, -1 if it is as far behind,
         * else 0.
         */
        int lead(Time now) {
            boolean isAhead = stamp.compareTo(now.plus(MAX_LEAD_SECONDS)) > 0;
            boolean isBehind = stamp.plus(MAX_LEAD_SECONDS).compareTo(now) < 0;
            return isAhead ? 1 : isBehind ? -1 : 0;
        }

        Order inEpoch(long other) {
            return new Order(other, effective, stamp);
        }

        /** Whether {@code known} is the later one only because of another server's clock. */
        boolean isHeldBackBy(Order known, Time now) {
            return stamp.compareTo(known.stamp) > 0 || known.effective.compareTo(now.plus(MAX_AHEAD_SECONDS)) > 0;
        }

        @Override
        public int compareTo(Order other) {
            int byEpoch = Long.compare(epoch, other.epoch);
            int byEffective = byEpoch != 0 ? byEpoch : effective.compareTo(other.effective);
            return byEffective != 0 ? byEffective : stamp.compareTo(other.stamp);
        }
    }
}
