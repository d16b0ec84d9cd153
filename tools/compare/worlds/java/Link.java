import java.util.HexFormat;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A connection between two servers of the herd. The protocol is described in herd-mio's core/link.
 * This class knows the protocol. Reading and writing is elsewhere: in two threads, or in a
 * selector's loop. A caller holds the herd's lock, unless the link is new.
 *
 * <pre>
 *   GREETING ──► PROVING ──► STARTING ──► LINKED ──► CLOSING
 * </pre>
 */
final class Link {
    /** The name under which a tool asks for a server's status. No server has this name. */
    static final String OPERATOR = "operator";
    /** The time limit of a connect. */
    static final int CONNECT_MS = 3_000;
    /** The time limit for a peer's proof. */
    static final int PROOF_MS = 5_000;
    static final int HEARTBEAT_MS = 3_000;
    /** The delay of a KEPT, so that one confirms many batches. */
    static final int CONFIRM_MS = 200;
    /** After so long a silence of the neighbour the link is closed. */
    static final int SILENCE_MS = 10_000;
    /**
     * After the last output the connection is read for so long. Otherwise unread input would reset
     * it, and the output could be lost.
     */
    static final int LINGER_MS = 2_000;

    /** The version of the neighbours' protocol. */
    private static final String VERSION = "2";
    private static final long REDIAL_FIRST_MS = 100;
    private static final long REDIAL_CAP_MS = 1_000;
    /** After a link that held for so long, the first redial comes soon. */
    private static final long STEADY_NS = 2_000_000_000L;
    /**
     * The greatest length of a line: a client's line, a server's name, a skew, and perhaps an
     * epoch.
     */
    private static final int LINE_BYTES = 4096 + 256;
    private static final int BATCH_BYTES = 64 * 1024;
    /** At most so many bytes of the peer's line are logged. */
    private static final int SHOWN_BYTES = 100;
    /** A greater difference of the wall clocks is logged. */
    private static final long CLOCK_TOLERANCE_MS = 1_000;
    private static final Pattern NONCE = Pattern.compile("[0-9a-fA-F]{" + 2 * Proof.NONCE_BYTES + "}");
    private static final Pattern BOOT = Pattern.compile("[0-9a-fA-F]{16}");
    private static final Pattern WITH_EPOCH = Pattern.compile("EPOCH ([1-9][0-9]{0,9}) (.*)", Pattern.DOTALL);
    private static final String GOODBYE = "stopping";

    private enum State { GREETING, PROVING, STARTING, LINKED, CLOSING }

    /** Why this server ends a link. The peer gets the reason. */
    private static final class Broken extends Exception {
        private static final long serialVersionUID = 1;

        Broken(String reason) {
            super(reason);
        }
    }

    final Lines input = new Lines(LINE_BYTES);
    final Bytes output = new Bytes();
    /** It still lacks older records, or takes no bytes. */
    boolean isBehind = true;
    private final Herd herd;
    private final boolean isDialler;
    private final String address;
    private final Proof.Party us;
    private Proof.Party them;
    /** The dialled neighbour, or the one that the peer claims to be. */
    private Herd.Neighbour neighbour;
    private State state = State.GREETING;
    private boolean isProven;
    private long teacher;
    private long linkedSince;
    /**
     * All changes up to {@code position} are in the output or were. All up to {@code told} are in
     * the socket.
     */
    private long position;
    private long told;
    /** The confirmed position in its feed, and since when there is more to confirm. */
    private long confirmed;
    private long unconfirmedSince;
    private boolean isUnconfirmed;
    /**
     * The peer's reports: the position in our feed that it has kept, and the number of records that
     * it refused.
     */
    private long kept;
    private long lacks;
    /** The first reason of its end. */
    private String farewell;

    private Link(Herd herd, Herd.Neighbour dialled, String address) {
        this.herd = herd;
        this.isDialler = dialled != null;
        this.neighbour = dialled;
        this.address = address;
        this.us = new Proof.Party(herd.name, Proof.nonce());
    }

    /** A connection that this server made. */
    static Link dialled(Herd herd, Herd.Neighbour neighbour, String address) {
        Link link = new Link(herd, neighbour, address);
        link.say("HERD " + VERSION + " " + herd.name + " " + neighbour.name + " " + link.us.nonce());
        return link;
    }

    /** A connection that a peer made. */
    static Link accepted(Herd herd, String address) {
        return new Link(herd, null, address);
    }

    boolean isLinked() {
        return state == State.LINKED;
    }

    boolean isClosing() {
        return state == State.CLOSING;
    }

    /** Whether it was linked at some time. */
    boolean wasLinked() {
        return linkedSince != 0;
    }

    /** Whether clients have to wait until the neighbour has got a change. */
    boolean lacks(long seq) {
        return isLinked() && !isBehind && told < seq;
    }

    private void say(String line) {
        output.append(line).append("\n");
    }

    /** Handles the whole lines of the input. */
    void act() {
        while (!isClosing()) {
            String line = input.next();
            try {
                if (line != null) {
                    line(line);
                } else if (input.isTooLong()) {
                    throw new Broken("a line of more than " + LINE_BYTES + " bytes");
                } else {
                    return;
                }
            } catch (Broken broken) {
                end(broken.getMessage());
            }
        }
        input.bytes.drop(input.bytes.length());
    }

    private void line(String line) throws Broken {
        if (state == State.LINKED && (line.startsWith("AT ") || line.startsWith("EPOCH "))) {
            heard(line);
            return;
        }
        String[] words = line.split(" ", -1);
        switch (words[0]) {
            case "BYE" -> lost("it said goodbye: " + shown(line.substring(3).strip()));
            case "HERD" -> greeted(words, line);
            case "PROOF" -> proven(words, line);
            case "LIFE" -> started(words, line);
            case "SYNC" -> synced(number(words, line));
            case "KEPT" -> kept = number(words, line);
            case "LACKS" -> refused(number(words, line));
            case "CLOCK" -> number(words, line); // Only LIFE's clock is used.
            default -> throw unexpected(line);
        }
    }

    /** Handles {@code AT …} or {@code EPOCH <n> AT …}. */
    private void heard(String told) throws Broken {
        Matcher withEpoch = WITH_EPOCH.matcher(told);
        long epoch = withEpoch.matches() ? Long.parseLong(withEpoch.group(1)) : 0;
        String line = epoch > 0 ? withEpoch.group(2) : told;
        Grammar.At at = Grammar.At.parse(line);
        if (at == null || epoch > Times.Order.MAX_EPOCH) {
            throw new Broken("not an AT line: " + shown(told));
        }
        herd.offer(line, at.client(), at.order().inEpoch(epoch), teacher);
    }

    /** Checks that such a line may come now, and has so many words. */
    private void expect(State wanted, int count, String[] words, String line) throws Broken {
        if (state != wanted || words.length != count) {
            throw unexpected(line);
        }
    }

    private static Broken unexpected(String line) {
        return new Broken("not the neighbours' protocol: " + shown(line));
    }

    /** The beginning of a peer's line, escaped for the log. */
    private static String shown(String bytes) {
        return Log.escaped(bytes.substring(0, Math.min(bytes.length(), SHOWN_BYTES)));
    }

    /** Handles {@code HERD 2 <from> <to> <nonce>}. */
    private void greeted(String[] words, String line) throws Broken {
        if (words.length > 1 && !words[1].equals(VERSION)) {
            String versions = "version " + shown(words[1]) + " of the neighbours' protocol, this server " + VERSION;
            throw new Broken("it speaks " + versions + "; upgrade the older one");
        }
        expect(State.GREETING, 5, words, line);
        String from = words[2], to = words[3], nonce = words[4];
        if (!to.equals(herd.name)) {
            throw new Broken("it looks for " + shown(to) + ", this is " + herd.name);
        }
        if (!NONCE.matcher(nonce).matches()) {
            throw new Broken("a nonce that is not " + 2 * Proof.NONCE_BYTES + " hexadecimal digits");
        }
        them = new Proof.Party(from, nonce.toLowerCase());
        state = State.PROVING;
        boolean isOperator = !isDialler && from.equals(OPERATOR);
        Herd.Neighbour named = herd.neighbours.get(from);
        if (named == null && !isOperator) {
            throw new Broken(shown(from) + " is not linked with " + herd.name);
        }
        if (isDialler) {
            if (named != neighbour) {
                throw new Broken(shown(from) + " answered instead");
            }
            // The dialler proves itself first. So an unproven peer that dials gets nothing made
            // with the secret.
            say("PROOF " + proof("dialler"));
            return;
        }
        if (named != null && named.weDial) {
            throw new Broken("it is " + herd.name + " that dials " + shown(from));
        }
        neighbour = named;
        say("HERD " + VERSION + " " + herd.name + " " + from + " " + us.nonce());
    }

    private String proof(String speaker) {
        return isDialler ? Proof.prove(herd.secret, speaker, us, them) : Proof.prove(herd.secret, speaker, them, us);
    }

    /** Handles {@code PROOF <mac>}. */
    private void proven(String[] words, String line) throws Broken {
        expect(State.PROVING, 2, words, line);
        if (!Proof.isSame(words[1], proof(isDialler ? "acceptor" : "dialler"))) {
            throw new Broken("a wrong proof: do both servers have the same herd secret?");
        }
        isProven = true;
        if (!isDialler) {
            say("PROOF " + proof("acceptor"));
        }
        if (neighbour == null) {
            say(herd.status());
            lost("told how the server stands");
            return;
        }
        Herd.Heard heard = neighbour.heard;
        String known = heard == null ? "- 0" : HexFormat.of().toHexDigits(heard.boot()) + " " + heard.position();
        say("LIFE " + HexFormat.of().toHexDigits(herd.boot) + " " + Times.Time.now().nanos() + " " + known);
        state = State.STARTING;
    }

    /** Handles {@code LIFE <boot> <wall> <your boot> <position>}, which completes the link. */
    private void started(String[] words, String line) throws Broken {
        expect(State.STARTING, 5, words, line);
        if (!BOOT.matcher(words[1]).matches()) {
            throw unexpected(line);
        }
        long boot = Long.parseUnsignedLong(words[1], 16);
        long wall = number(words[2], line);
        long theirPosition = number(words[4], line);
        boolean knowsUs = BOOT.matcher(words[3]).matches() && Long.parseUnsignedLong(words[3], 16) == herd.boot;
        // A position counts only for the life from which it came.
        if (neighbour.heard == null || neighbour.heard.boot() != boot) {
            neighbour.heard = new Herd.Heard(boot, 0, herd.nextSerial());
        }
        teacher = neighbour.heard.teacher();
        long lastSeq = herd.records.lastSeq();
        confirmed = neighbour.heard.position();
        kept = position = told = knowsUs && theirPosition <= lastSeq ? theirPosition : 0;
        // A neighbour that proves itself again has lost the old connection, so the old link ends.
        if (neighbour.link != null) {
            neighbour.link.end("a newer connection took its place");
        }
        neighbour.link = this;
        linkedSince = System.nanoTime();
        state = State.LINKED;
        Log.info(() -> "neighbour " + neighbour.name + ": linked, " + (lastSeq - position) + " changes behind");
        long apartMs = Math.abs(System.currentTimeMillis() - wall / 1_000_000);
        if (apartMs > CLOCK_TOLERANCE_MS) {
            Log.warn("neighbour " + neighbour.name + ": its clock is " + apartMs / 1000 + " s off ours");
        }
    }

    /** The number in {@code SYNC}, {@code KEPT}, {@code LACKS} and {@code CLOCK}. */
    private long number(String[] words, String line) throws Broken {
        expect(State.LINKED, 2, words, line);
        return number(words[1], line);
    }

    private void synced(long position) {
        Herd.Heard heard = neighbour.heard;
        neighbour.heard = new Herd.Heard(heard.boot(), position, heard.teacher());
        if (position > confirmed && !isUnconfirmed) {
            isUnconfirmed = true;
            unconfirmedSince = System.nanoTime();
        }
    }

    private void refused(long count) {
        if (lacks != count) {
            lacks = count;
            Log.warn("neighbour " + neighbour.name + ": records that it had to refuse: " + count);
        }
    }

    private static long number(String text, String line) throws Broken {
        if (!Grammar.isNumber(text)) {
            throw unexpected(line);
        }
        try {
            return Long.parseLong(text);
        } catch (NumberFormatException tooLarge) {
            throw unexpected(line);
        }
    }

    /** Whether the feed has grown since it was last pulled. */
    boolean hasMore() {
        return isLinked() && position < herd.records.lastSeq();
    }

    /** If the output is empty, appends the next records that the neighbour lacks. */
    void pull() {
        if (hasMore() && output.isEmpty()) {
            position = herd.records.read(position, teacher, BATCH_BYTES, output);
            if (!output.isEmpty()) {
                say("SYNC " + position);
            }
        }
    }

    /** Sends a heartbeat, unless there is output. */
    void beat() {
        if (isLinked() && output.isEmpty()) {
            say("SYNC " + position);
        }
    }

    /** The time until there is something to {@link #confirm}. */
    long confirmInNs() {
        return isUnconfirmed ? CONFIRM_MS * 1_000_000L - (System.nanoTime() - unconfirmedSince) : Long.MAX_VALUE;
    }

    /** Confirms the received part of the neighbour's feed. All of it is kept in memory. */
    void confirm() {
        if (isLinked() && confirmInNs() <= 0) {
            isUnconfirmed = false;
            confirmed = neighbour.heard.position();
            say("KEPT " + confirmed);
        }
    }

    /**
     * The link's part of STATUS: unconfirmed changes, the difference of the clocks (unknown here),
     * refused records.
     */
    String standing() {
        return Math.max(herd.records.lastSeq() - kept, 0) + ":?:" + lacks + ":";
    }

    /** The last change that is in the output or was. */
    long position() {
        return position;
    }

    /** The whole output is in the socket, with all changes up to {@code seq}. */
    void written(long seq) {
        told = seq;
        isBehind = isBehind && seq < herd.records.lastSeq();
        herd.told.signalAll();
    }

    /** Ends the link, and tells the peer why. */
    void end(String reason) {
        if (!isClosing()) {
            say("BYE " + reason);
            lost(reason);
        }
    }

    /** The server stops. */
    void stop() {
        end(GOODBYE);
    }

    /** The link has ended. The output is its last one. */
    void lost(String reason) {
        if (isClosing()) {
            return;
        }
        farewell = reason;
        state = State.CLOSING;
        if (neighbour != null && neighbour.link == this) {
            neighbour.link = null;
        }
        herd.told.signalAll();
        herd.news.signalAll();
    }

    /** The peer was silent for too long. */
    void silent() {
        output.drop(output.length()); // A silent peer gets no reason, and no wait.
        String patience = " " + (isLinked() ? SILENCE_MS : PROOF_MS) / 1000 + " s";
        lost((isLinked() ? "nothing heard for" : "it did not prove who it is within") + patience);
    }

    /** Logs the end of a link, or of an attempt of a peer to make one. */
    void tellLog() {
        String what = "neighbour " + (neighbour == null ? "" : neighbour.name) + " " + address + ": lost: " + farewell;
        if (wasLinked() && farewell.equals(GOODBYE)) {
            Log.info(() -> what);
        } else if (wasLinked()) {
            Log.warn(what);
        } else if (neighbour == null && isProven) {
            Log.info(() -> "operator " + address + ": " + farewell);
        } else if (herd.isNews(farewell)) {
            String claim = neighbour == null ? "" : ", who says to be " + neighbour.name;
            Log.warn("stranger " + address + claim + ": refused: " + farewell);
        }
    }

    /** Dials one neighbour again and again. */
    static final class Dialling {
        private final String target;
        private long stepMs = REDIAL_FIRST_MS;
        private String complaint = "";

        Dialling(Options.Dialled dialled) {
            target = "neighbour " + dialled.name() + " " + dialled.address();
        }

        /** A connect failed. The same failure is logged once, and not every second. */
        void failed(String reason) {
            if (!reason.equals(complaint)) {
                Log.warn(target + ": not linked: " + reason + "; trying on");
                complaint = reason;
            }
        }

        /** A connection has ended. */
        void ended(Link link) {
            if (!link.wasLinked()) {
                failed(link.farewell);
                return;
            }
            link.tellLog();
            complaint = "";
            if (System.nanoTime() - link.linkedSince >= STEADY_NS) {
                stepMs = REDIAL_FIRST_MS;
            }
        }

        /**
         * The next wait: 50 % to 90 % of a step. So servers that lost the same neighbour do not all
         * dial at the same time.
         */
        long nextWaitMs() {
            long wait = (long) (stepMs * (0.5 + 0.4 * Math.random()));
            stepMs = Math.min(2 * stepMs, REDIAL_CAP_MS);
            return wait;
        }
    }
}
