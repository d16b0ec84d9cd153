import java.math.BigDecimal;
import java.math.RoundingMode;
import java.util.ArrayList;
import java.util.List;

/**
 * Parses lines: a client's IAMAT and WHATSAT, and the AT line that answers an IAMAT and is sent to
 * all servers.
 */
final class Grammar {
    private static final BigDecimal METRES_IN_KM = new BigDecimal(1000);
    private static final BigDecimal MAX_RADIUS_KM = new BigDecimal(50);

    private Grammar() {}

    /** A client's command. */
    sealed interface Command permits Iamat, Whatsat, Blank, Invalid {}

    /** {@code IAMAT <client> <location> <time>} */
    record Iamat(String client, String location, String time, Times.Time stamp) implements Command {}

    /** {@code WHATSAT <client> <radius km> <bound>}. The radius is converted to metres. */
    record Whatsat(String client, String metres, int bound) implements Command {}

    /** Only white space. It gets no answer. */
    record Blank() implements Command {}

    /** Anything else. */
    record Invalid() implements Command {}

    static Command command(String line) {
        List<String> fields = fields(line);
        if (fields.isEmpty()) {
            return new Blank();
        }
        if (fields.size() != 4) {
            return new Invalid();
        }
        String client = fields.get(1);
        switch (fields.get(0)) {
            case "IAMAT" -> {
                Times.Time stamp = Times.Time.parse(fields.get(3));
                if (stamp != null && Location.parse(fields.get(2)) != null) {
                    return new Iamat(client, fields.get(2), fields.get(3), stamp);
                }
            }
            case "WHATSAT" -> {
                String metres = metres(fields.get(2));
                int bound = smallNumber(fields.get(3), 20);
                if (metres != null && bound >= 1) {
                    return new Whatsat(client, metres, bound);
                }
            }
            default -> {}
        }
        return new Invalid();
    }

    /** White space in the protocol is C's isspace. (Character.isWhitespace accepts more.) */
    static boolean isSpace(char c) {
        return c == ' ' || (0x09 <= c && c <= 0x0d);
    }

    /** The fields of a line, which white space separates. At most five are returned. */
    private static List<String> fields(String line) {
        List<String> fields = new ArrayList<>(5);
        int at = 0;
        while (at < line.length() && fields.size() < 5) {
            int start = at;
            while (at < line.length() && !isSpace(line.charAt(at))) {
                at++;
            }
            if (at > start) {
                fields.add(line.substring(start, at));
            }
            at++;
        }
        return fields;
    }

    /**
     * Whether the text is not empty and has only digits. (Character.isDigit accepts more than ten.)
     */
    static boolean isNumber(String text) {
        for (int at = 0; at < text.length(); at++) {
            if (text.charAt(at) < '0' || text.charAt(at) > '9') {
                return false;
            }
        }
        return !text.isEmpty();
    }

    /** A whole number of at most {@code most}, digits only, or -1. */
    private static int smallNumber(String text, int most) {
        if (!isNumber(text)) {
            return -1;
        }
        int value = 0;
        for (int at = 0; at < text.length() && value <= most; at++) {
            value = 10 * value + (text.charAt(at) - '0');
        }
        return value <= most ? value : -1;
    }

    /** Whether the text is digits, and optionally a point and digits. */
    private static boolean isDecimal(String text) {
        int point = text.indexOf('.');
        return point < 0 ? isNumber(text) : isNumber(text.substring(0, point)) && isNumber(text.substring(point + 1));
    }

    /**
     * A radius in km, 0 &lt; r ≤ 50, as metres to the nanometre. A finer one is rounded up, so none
     * becomes zero.
     */
    private static String metres(String kilometres) {
        if (!isDecimal(kilometres)) {
            return null;
        }
        BigDecimal radius = new BigDecimal(kilometres);
        if (radius.signum() == 0 || radius.compareTo(MAX_RADIUS_KM) > 0) {
            return null;
        }
        return radius.multiply(METRES_IN_KM).setScale(9, RoundingMode.UP).stripTrailingZeros().toPlainString();
    }

    /**
     * A position in ISO 6709 decimal degrees. The digits stay text, so nothing is rounded on the
     * way to Google.
     */
    record Location(String latitude, String longitude) {
        /**
         * Parses twice [+-], 1–3 digits, and optionally a point and digits. The latitude is within
         * ±90, the longitude within ±180.
         */
        static Location parse(String text) {
            int second = Math.max(text.lastIndexOf('+'), text.lastIndexOf('-'));
            if (second < 1 || !isWithin(text.substring(0, second), 90) || !isWithin(text.substring(second), 180)) {
                return null;
            }
            return new Location(text.substring(0, second), text.substring(second));
        }

        private static boolean isWithin(String text, int limit) {
            char sign = text.charAt(0);
            int point = text.indexOf('.');
            int wholeEnd = point < 0 ? text.length() : point;
            String size = text.substring(1);
            if ((sign != '+' && sign != '-') || wholeEnd > 4 || !isDecimal(size)) {
                return false;
            }
            int degrees = Integer.parseInt(text.substring(1, wholeEnd));
            return degrees < limit || (degrees == limit && text.substring(wholeEnd).chars().allMatch(c -> c == '.' || c == '0'));
        }

        /** The form for URLs: no plus signs, no leading zeros. */
        String plain() {
            return plain(latitude) + "," + plain(longitude);
        }

        private static String plain(String coordinate) {
            String size = coordinate.substring(1).replaceFirst("^0+(?=[0-9])", "");
            return coordinate.charAt(0) == '-' ? "-" + size : size;
        }
    }

    /** A parsed AT line. Servers store and send the line itself. */
    record At(String client, Location location, Times.Order order) {
        /**
         * Parses {@code AT <server> <skew> <client> <location> <time>} with single spaces, and
         * nothing before or after it.
         */
        static At parse(String line) {
            String[] words = line.split(" ", -1);
            if (words.length != 6 || !words[0].equals("AT") || !isName(words[1]) || !isName(words[3])) {
                return null;
            }
            Times.Skew skew = Times.Skew.parse(words[2]);
            Location location = Location.parse(words[4]);
            Times.Time stamp = Times.Time.parse(words[5]);
            if (skew == null || location == null || stamp == null) {
                return null;
            }
            Times.Order order = Times.Order.of(stamp, skew);
            return order == null ? null : new At(words[3], location, order);
        }

        private static boolean isName(String field) {
            for (int at = 0; at < field.length(); at++) {
                if (isSpace(field.charAt(at))) {
                    return false;
                }
            }
            return !field.isEmpty();
        }
    }
}
