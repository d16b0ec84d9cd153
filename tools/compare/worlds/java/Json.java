import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Scans a JSON text. It finds out whether the text is an object, and where the elements of its
 * lists of results end. Google's layout varies, so the text is cut and not written anew.
 */
final class Json {
    /** The greatest depth of nested objects and lists. Deeper text is refused, which bounds the recursion. */
    private static final int MAX_DEPTH = 128;

    private static final class NotJson extends Exception {
        private static final long serialVersionUID = 1;

        NotJson() {
            super("not JSON", null, false, false);
        }
    }

    private static final Pattern ESCAPE = Pattern.compile("\\\\u([0-9a-fA-F]{4})");

    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    /**
     * For each list called "results" in the object, the ends of its elements. Null if the text is
     * no JSON object.
     */
    static List<List<Integer>> results(String text) {
        Json json = new Json(text);
        try {
            json.skipSpace();
            List<List<Integer>> lists = json.object();
            json.skipSpace();
            return json.at == text.length() ? lists : null;
        } catch (NotJson | StringIndexOutOfBoundsException notJson) {
            return null;
        }
    }

    private List<List<Integer>> object() throws NotJson {
        List<List<Integer>> lists = new ArrayList<>();
        expect('{');
        if (skipSpace() == '}') {
            at++;
            return lists;
        }
        while (true) {
            skipSpace();
            int start = at;
            string();
            boolean isResults = plain(text.substring(start + 1, at - 1)).equals("results");
            skipSpace();
            expect(':');
            if (skipSpace() == '[' && isResults) {
                lists.add(list(1));
            } else {
                value(1);
            }
            if (skipSpace() != ',') {
                expect('}');
                return lists;
            }
            at++;
        }
    }

    /**
     * Decodes letters of a string that are written as {@code &#92;u0072}. Other escapes stay as
     * they are.
     */
    private static String plain(String string) {
        Matcher escapes = ESCAPE.matcher(string);
        return escapes.replaceAll(escape -> {
            String letter = String.valueOf((char) Integer.parseInt(escape.group(1), 16));
            return Matcher.quoteReplacement(letter);
        });
    }

    private void value(int depth) throws NotJson {
        if (depth >= MAX_DEPTH) {
            throw new NotJson();
        }
        switch (text.charAt(at)) {
            case '{' -> nestedObject(depth);
            case '[' -> list(depth);
            case '"' -> string();
            case 't' -> word("true");
            case 'f' -> word("false");
            case 'n' -> word("null");
            default -> number();
        }
    }

    private void nestedObject(int depth) throws NotJson {
        expect('{');
        if (skipSpace() == '}') {
            at++;
            return;
        }
        while (true) {
            skipSpace();
            string();
            skipSpace();
            expect(':');
            skipSpace();
            value(depth + 1);
            if (skipSpace() != ',') {
                expect('}');
                return;
            }
            at++;
        }
    }

    private List<Integer> list(int depth) throws NotJson {
        List<Integer> ends = new ArrayList<>();
        expect('[');
        if (skipSpace() == ']') {
            at++;
            return ends;
        }
        while (true) {
            skipSpace();
            value(depth + 1);
            ends.add(at);
            if (skipSpace() != ',') {
                expect(']');
                return ends;
            }
            at++;
        }
    }

    private void string() throws NotJson {
        expect('"');
        while (text.charAt(at) != '"') {
            char c = text.charAt(at++);
            if (c < ' ') {
                throw new NotJson();
            }
            if (c == '\\') {
                escape();
            }
        }
        at++;
    }

    private void escape() throws NotJson {
        char c = text.charAt(at++);
        if (c == 'u') {
            for (int end = at + 4; at < end; at++) {
                if (Character.digit(text.charAt(at), 16) < 0) {
                    throw new NotJson();
                }
            }
        } else if ("\"\\/bfnrt".indexOf(c) < 0) {
            throw new NotJson();
        }
    }

    private void number() throws NotJson {
        if (text.charAt(at) == '-') {
            at++;
        }
        if (text.charAt(at) == '0') {
            at++;
        } else {
            digits();
        }
        if (next() == '.') {
            at++;
            digits();
        }
        if (next() == 'e' || next() == 'E') {
            at++;
            if (next() == '+' || next() == '-') {
                at++;
            }
            digits();
        }
    }

    private void digits() throws NotJson {
        int start = at;
        while (next() >= '0' && next() <= '9') {
            at++;
        }
        if (at == start) {
            throw new NotJson();
        }
    }

    private void word(String word) throws NotJson {
        if (!text.startsWith(word, at)) {
            throw new NotJson();
        }
        at += word.length();
    }

    private void expect(char wanted) throws NotJson {
        if (text.charAt(at) != wanted) {
            throw new NotJson();
        }
        at++;
    }

    /** Skips white space. Returns the character after it. */
    private char skipSpace() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
        return next();
    }

    /** The current character, or NUL at the end of the text. */
    private char next() {
        return at < text.length() ? text.charAt(at) : '\0';
    }

    /** A JSON string with its quotes, in ASCII. */
    static String quoted(String text) {
        StringBuilder json = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                json.append('\\').append(c);
            } else if (' ' <= c && c <= '~') {
                json.append(c);
            } else {
                json.append(String.format("\\u%04x", (int) c));
            }
        }
        return json.append('"').toString();
    }
}
