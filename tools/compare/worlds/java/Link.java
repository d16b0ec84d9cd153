import java.util.HexFormat;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A connection between two servers of the herd: the neighbours' protocol, as herd-mio's core/link describes it. This class knows
 * what is said; who reads and writes, two threads or a selector's loop, is elsewhere. Whoever calls it holds the herd's lock, unless
 * it is new.
 *
 * <pre>
 *   GREETING ──► PROVING ──► STARTING ──► LINKED ──► CLOSING
 * </pre>
 */
final class Link {
    /** The name under which a tool asks how a server stands; no server is called so. */
    static final String OPERATOR = "operator";
    /** Time for a connection to be made. */
    static final int CONNECT_MS = 3_000;
    /** Time for a neighbour to prove who it is. */
    static final int PROOF_MS = 5_000;
    static final int HEARTBEAT_MS = 3_000;
    /** Wait before a KEPT, so that one confirms many batches. */
    static final int CONFIRM_MS = 200;
    /** Silence of a neighbour after which it counts as lost. */
    static final int SILENCE_MS = 10_000;
    /** Time that a connection which was told its last words is still listened to, so that they are not lost. */
    static final int LINGER_MS = 2_000;

    /** Of the neighbours' protocol. */
    private static final String VERSION = "2";
    private static final long REDIAL_FIRST_MS = 100;
    private static final long REDIAL_CAP_MS = 1_000;
    /** A link that held for so long was a good one. */
    private static final long STEADY_NS = 2_000_000_000L;
    /** A line is a client's line, a server's name, a skew, and perhaps an epoch. */
    private static final int LINE_BYTES = 4096 + 256;
    private static final int BATCH_BYTES = 64 * 1024;
    /** So much of what the other side said is repeated in a log line. */
    private static final int SHOWN_BYTES = 100;
    /** A wall clock that is further off than this is told in the log. */
    private static final long CLOCK_TOLERANCE_MS = 1_000;
    private static final Pattern NONCE = Pattern.compile("[0-9a-fA-F]{" + 2 * Proof.NONCE_BYTES + "}");
    private static final Pattern BOOT = Pattern.compile("[0-9a-fA-F]{16}");
    private static final Pattern WITH_EPOCH = Pattern.compile("EPOCH ([1-9][0-9]{0,9}) (.*)", Pattern.DOTALL);
    private static final String GOODBYE = "stopping";

    private enum State { GREETING, PROVING, STARTING, LINKED, CLOSING }

    /** Why a link cannot go on: the other side is told. */
    private static final class Broken extends Exception {
        private static final long serialVersionUID = 1;

        Broken(String reason) {
            super(reason);
        }
    }

    final Lines input = new Lines(LINE_BYTES);
    final Bytes output = new Bytes();
    /** It is still being told what it lacked from before, or takes nothing. */
    boolean isBehind = true;
    private final Herd herd;
    private final boolean isDialler;
    private final String address;
    private final Proof.Party us;
    private Proof.Party them;
    /** Whom we dialled, or who it says it is. */
    private Herd.Neighbour neighbour;
    private State state = State.GREETING;
    private boolean isProven;
    private long teacher;
    private long linkedSince;
    /** It has been, or is being, told everything up to the change {@code position}; everything up to {@code told} is in its socket. */
    private long position;
    private long told;
    /** Its feed is confirmed up to there; and since when there is more to confirm, if there is. */
    private long confirmed;
    private long unconfirmedSince;
    private boolean isUnconfirmed;
    /** What it says: how much of our feed it has kept, and how many records it had to refuse. */
    private long kept;
    private long lacks;
    /** Why it ends, the first reason only. */
    private String farewell;

    private Link(Herd herd, Herd.Neighbour dialled, String address) {
        this.herd = herd;
        this.isDialler = dialled != null;
        this.neighbour = dialled;
        this.address = address;
        this.us = new Proof.Party(herd.name, Proof.nonce());
    }

    /** A connection that we made. */
    static Link dialled(Herd herd, Herd.Neighbour neighbour, String address) {
        Link link = new Link(herd, neighbour, address);
        link.say("HERD " + VERSION + " " + herd.name + " " + neighbour.name + " " + link.us.nonce());
        return link;
    }

    /** A connection that somebody made to us. */
    static Link accepted(Herd herd, String address) {
        return new Link(herd, null, address);
    }

    boolean isLinked() {
        return state == State.LINKED;
    }

    boolean isClosing() {
        return state == State.CLOSING;
    }

    /** Whether it was linked at all, if only for a while. */
    boolean wasLinked() {
        return linkedSince != 0;
    }

    /** Whether clients have to wait until it has been told of a change. */
    boolean lacks(long seq) {
        return isLinked() && !isBehind && told < seq;
    }

    private void say(String line) {
        output.append(line).append("\n");
    }

    /** Acts on the whole lines of the input. */
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
            case "CLOCK" -> number(words, line); // its LIFE said it, and we set no clock by it
            default -> throw unexpected(line);
        }
    }

    /** {@code AT …} or {@code EPOCH <n> AT …} */
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

    /** Whether this is the time for such a line, and it has so many words. */
    private void expect(State wanted, int count, String[] words, String line) throws Broken {
        if (state != wanted || words.length != count) {
            throw unexpected(line);
        }
    }

    private static Broken unexpected(String line) {
        return new Broken("not the neighbours' protocol: " + shown(line));
    }

    /** The beginning of what the other side said, fit for a log line. */
    private static String shown(String bytes) {
        return Log.escaped(bytes.substring(0, Math.min(bytes.length(), SHOWN_BYTES)));
    }

    /** {@code HERD 2 <from> <to> <nonce>} */
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
            // The dialler proves itself first: a stranger that dials learns nothing made with the secret.
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

    /** {@code PROOF <mac>} */
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

    /** {@code LIFE <boot> <wall> <your boot> <position>}: the link is made. */
    private void started(String[] words, String line) throws Broken {
        expect(State.STARTING, 5, words, line);
        if (!BOOT.matcher(words[1]).matches()) {
            throw unexpected(line);
        }
        long boot = Long.parseUnsignedLong(words[1], 16);
        long wall = number(words[2], line);
        long theirPosition = number(words[4], line);
        boolean knowsUs = BOOT.matcher(words[3]).matches() && Long.parseUnsignedLong(words[3], 16) == herd.boot;
        // What was heard of this life counts, what was heard of another does not.
        if (neighbour.heard == null || neighbour.heard.boot() != boot) {
            neighbour.heard = new Herd.Heard(boot, 0, herd.nextSerial());
        }
        teacher = neighbour.heard.teacher();
        long lastSeq = herd.records.lastSeq();
        confirmed = neighbour.heard.position();
        kept = position = told = knowsUs && theirPosition <= lastSeq ? theirPosition : 0;
        // A neighbour that proves itself anew was cut off without our noticing: its old link is dead.
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

    /** The number of {@code SYNC}, {@code KEPT}, {@code LACKS} and {@code CLOCK}. */
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

    /** When the output is empty: appends the next records that the neighbour lacks, if there are any. */
    void pull() {
        if (hasMore() && output.isEmpty()) {
            position = herd.records.read(position, teacher, BATCH_BYTES, output);
            if (!output.isEmpty()) {
                say("SYNC " + position);
            }
        }
    }

    /** Nothing was said for a while. */
    void beat() {
        if (isLinked() && output.isEmpty()) {
            say("SYNC " + position);
        }
    }

    /** How long until there is something to {@link #confirm}. */
    long confirmInNs() {
        return isUnconfirmed ? CONFIRM_MS * 1_000_000L - (System.nanoTime() - unconfirmedSince) : Long.MAX_VALUE;
    }

    /** Says how much of its feed we have kept: all that we heard, as we keep it in memory. */
    void confirm() {
        if (isLinked() && confirmInNs() <= 0) {
            isUnconfirmed = false;
            confirmed = neighbour.heard.position();
            say("KEPT " + confirmed);
        }
    }

    /** For STATUS: unconfirmed changes, how far apart its clock is (not known), what it lacks. */
    String standing() {
        return Math.max(herd.records.lastSeq() - kept, 0) + ":?:" + lacks + ":";
    }

    /** Up to which change everything is in the output, or was. */
    long position() {
        return position;
    }

    /** All of the output has gone to the socket, when everything up to the change {@code seq} was in it. */
    void written(long seq) {
        told = seq;
        isBehind = isBehind && seq < herd.records.lastSeq();
        herd.told.signalAll();
    }

    /** Ends the link; the other side is told why. */
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

    /** The link is over; what is in the output is the last of it. */
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

    /** Nothing was heard for as long as may be. */
    void silent() {
        output.drop(output.length()); // whoever is silent is not told, and not waited for
        String patience = " " + (isLinked() ? SILENCE_MS : PROOF_MS) / 1000 + " s";
        lost((isLinked() ? "nothing heard for" : "it did not prove who it is within") + patience);
    }

    /** Tells the log of the end of a link that was, or of one that somebody wanted to have with us. */
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

    /** One neighbour that has to be dialled, again and again. */
    static final class Dialling {
        private final String target;
        private long stepMs = REDIAL_FIRST_MS;
        private String complaint = "";

        Dialling(Options.Dialled dialled) {
            target = "neighbour " + dialled.name() + " " + dialled.address();
        }

        /** There is no connection. The same failure is not told every second. */
        void failed(String reason) {
            if (!reason.equals(complaint)) {
                Log.warn(target + ": not linked: " + reason + "; trying on");
                complaint = reason;
            }
        }

        /** There was one. */
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

        /** How long to wait: 50 % to 90 % of a step, so that not all who lost the same neighbour dial in the same millisecond. */
        long nextWaitMs() {
            long wait = (long) (stepMs * (0.5 + 0.4 * Math.random()));
            stepMs = Math.min(2 * stepMs, REDIAL_CAP_MS);
            return wait;
        }
    }
}
