/** Bytes that came in, as lines. */
final class Lines {
    /** What came in and is no line yet. */
    final Bytes bytes = new Bytes();
    private final int limit;

    /** Lines of at most so many bytes before their LF. */
    Lines(int limit) {
        this.limit = limit;
    }

    /** The next line without its LF, or null if it is not there yet, or too long. */
    String next() {
        int end = bytes.indexOf((byte) '\n', limit + 1);
        if (end < 0) {
            return null;
        }
        String line = bytes.first(end);
        bytes.drop(end + 1);
        return line;
    }

    /** Whether there is no next line because it is too long. */
    boolean isTooLong() {
        return bytes.length() > limit;
    }

    /** What is left, or of a line that is too long, as much as one may have. */
    String rest() {
        String rest = bytes.first(Math.min(bytes.length(), limit));
        bytes.drop(bytes.length());
        return rest;
    }
}
