/** Splits received bytes into lines. */
final class Lines {
    /** Bytes that are no line yet. */
    final Bytes bytes = new Bytes();
    private final int limit;

    /** {@code limit} is the greatest length of a line before its LF. */
    Lines(int limit) {
        this.limit = limit;
    }

    /** The next line without its LF, or null if it is not complete or too long. */
    String next() {
        int end = bytes.indexOf((byte) '\n', limit + 1);
        if (end < 0) {
            return null;
        }
        String line = bytes.first(end);
        bytes.drop(end + 1);
        return line;
    }

    /** Whether the next line is too long. */
    boolean isTooLong() {
        return bytes.length() > limit;
    }

    /** Takes the remaining bytes, but returns at most the greatest length of a line. */
    String rest() {
        String rest = bytes.first(Math.min(bytes.length(), limit));
        bytes.drop(bytes.length());
        return rest;
    }
}
