import java.net.SocketAddress;

/**
 * One client: commands in, answers out, in order. This class knows the protocol. Reading and
 * writing is elsewhere: in a thread, or in a selector's loop.
 */
final class Client {
    /** The greatest length of a line before its LF. */
    private static final int LINE_BYTES = 4096;

    /** The next step before another line can be answered. */
    enum Next {
        /** More input has to be read. */
        READ,
        /** Places has to be asked {@link #question}, and then {@link #answered} called. */
        ASK,
        /** The connection has to be closed. */
        HANG_UP
    }

    final Lines input = new Lines(LINE_BYTES);
    final Bytes output = new Bytes();
    private final Herd herd;
    private final String who;
    /** The last change whose answer is in the output. The neighbours must get it first. */
    private long seq;
    /** The WHATSAT that waits for its answer. */
    private Grammar.Whatsat asked;
    /** The client's record when the WHATSAT came. */
    private String askedLine;

    Client(Herd herd, SocketAddress address) {
        this.herd = herd;
        this.who = "client " + herd.clientCame() + " " + Log.plain(address);
    }

    /** The connection has ended. */
    void lost() {
        herd.locked(() -> herd.clients--);
    }

    /** Answers whole lines until none is left, or one has to wait for Places. */
    Next answerLines(boolean isAtEnd) {
        while (true) {
            String line = input.next();
            if (line != null) {
                line = line.endsWith("\r") ? line.substring(0, line.length() - 1) : line;
            } else if (input.isTooLong()) {
                Log.warn(who + ": closing: a line of more than " + LINE_BYTES + " bytes");
                quote(input.rest());
                return Next.HANG_UP;
            } else if (isAtEnd && !input.bytes.isEmpty()) {
                line = input.rest(); // At the end of input, a last line needs no LF.
            } else {
                return Next.READ;
            }
            if (command(line) == Next.ASK) {
                return Next.ASK;
            }
        }
    }

    private Next command(String line) {
        Grammar.Command command = Grammar.command(line);
        if (command instanceof Grammar.Blank) {
            return Next.READ;
        }
        Log.info(() -> who + " <- " + Log.escaped(line));
        if (command instanceof Grammar.Iamat iamat) {
            iamat(iamat);
            return Next.READ;
        }
        if (command instanceof Grammar.Whatsat whatsat) {
            asked = whatsat;
            askedLine = herd.line(whatsat.client());
            if (askedLine != null) {
                return Next.ASK;
            }
        }
        quote(line);
        return Next.READ;
    }

    private void iamat(Grammar.Iamat iamat) {
        Times.Time now = Times.Time.now();
        Times.Skew skew = Times.Skew.between(now, iamat.stamp());
        String line = "AT " + herd.name + " " + skew + " " + iamat.client() + " " + iamat.location() + " " + iamat.time();
        Log.info(() -> who + " -> " + Log.escaped(line));
        Times.Order order = Times.Order.of(iamat.stamp(), skew);
        if (order != null) {
            seq = Math.max(seq, herd.update(line, iamat.client(), order, now));
        }
        output.append(line).append("\n");
    }

    /** Refuses a line: "? " and a copy of it. */
    private void quote(String line) {
        Log.info(() -> who + " -> ? " + Log.escaped(line));
        output.append("? ").append(line).append("\n");
    }

    /** The last change that the neighbours must get before the output is written, or 0. */
    long takeSeq() {
        long last = seq;
        seq = 0;
        return last;
    }

    /** The question for Places. */
    String question() {
        // The table holds only AT lines.
        Grammar.Location location = Grammar.At.parse(askedLine).location();
        return "location=" + location.plain() + "&radius=" + asked.metres();
    }

    /** The answer of Places has come. */
    void answered(Places.Answer answer) {
        String json = answer.json(asked.bound());
        Log.info(() -> who + " -> " + Log.escaped(askedLine) + " and " + json.length() + " bytes of JSON, " + answer.source());
        output.append(askedLine).append("\n").append(json).append("\n\n");
    }
}
