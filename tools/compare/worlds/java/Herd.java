import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;

/** What all connections share: who we are, who our neighbours are, and everybody's position. */
final class Herd {
    /** How long a client waits for a neighbour to be told, before that counts as being behind. */
    private static final long SLOW_AFTER_MS = 100;

    final String name;
    final String secret = Options.variable("HERD_SECRET");
    /** Which life of this process it is. */
    final long boot = Proof.boot();

    /** Guards everything below. In a program of one thread it is never waited for. */
    final ReentrantLock lock = new ReentrantLock();
    /** There is something to say to a neighbour. */
    final Condition news = lock.newCondition();
    /** A neighbour has been told something, or is gone. */
    final Condition told = lock.newCondition();
    final Records records = new Records();
    final Map<String, Neighbour> neighbours = new LinkedHashMap<>();
    int clients;
    volatile boolean isStopping;
    private long lastSerial;
    private String lastRefusal = "";

    /** A server that this one is linked with, or wants to be. */
    static final class Neighbour {
        final String name;
        final boolean weDial;
        Link link;
        /** What we have of its feed. */
        Heard heard;

        Neighbour(String name, boolean weDial) {
            this.name = name;
            this.weDial = weDial;
        }
    }

    /** How far a neighbour's feed has been heard: in which of its lives, up to which change; and that life's name as a teacher. */
    record Heard(long boot, long position, long teacher) {}

    Herd(Options options) {
        name = options.name();
        options.dial().forEach(dialled -> neighbours.put(dialled.name(), new Neighbour(dialled.name(), true)));
        options.accept().forEach(accepted -> neighbours.put(accepted, new Neighbour(accepted, false)));
    }

    /** Does something with the lock held. */
    void locked(Runnable work) {
        lock.lock();
        try {
            work.run();
        } finally {
            lock.unlock();
        }
    }

    /** One client more; returns the number of its connection. */
    long clientCame() {
        lock.lock();
        try {
            clients++;
            return nextSerial();
        } finally {
            lock.unlock();
        }
    }

    /** A number that was not given out before. */
    long nextSerial() {
        return ++lastSerial;
    }

    /** Takes a neighbour's record if it is the newest of its client. */
    void offer(String line, String client, Times.Order order, long teacher) {
        change(() -> records.offer(line, client, order, teacher));
    }

    /** Takes a record of an own client. Returns the number of the change, 0 if there is none. */
    long update(String line, String client, Times.Order order, Times.Time now) {
        return change(() -> records.update(line, client, order, now));
    }

    private long change(BooleanSupplier offer) {
        lock.lock();
        try {
            if (!offer.getAsBoolean()) {
                return 0;
            }
            news.signalAll();
            return records.lastSeq();
        } finally {
            lock.unlock();
        }
    }

    /** The AT line of a client, without its LF, or null. */
    String line(String client) {
        lock.lock();
        try {
            return records.line(client);
        } finally {
            lock.unlock();
        }
    }

    /** Waits until all neighbours that are linked have been told of a change. One that is behind is not waited for. */
    void awaitTold(long seq) throws InterruptedException {
        lock.lock();
        try {
            for (Neighbour neighbour : neighbours.values()) {
                long patience = TimeUnit.MILLISECONDS.toNanos(SLOW_AFTER_MS);
                while (neighbour.link != null && neighbour.link.lacks(seq)) {
                    if (patience <= 0) {
                        neighbour.link.isBehind = true;
                    }
                    patience = told.awaitNanos(patience);
                }
            }
        } finally {
            lock.unlock();
        }
    }

    /** How the server stands, for an operator. */
    String status() {
        StringBuilder line = new StringBuilder("STATUS boot=").append(HexFormat.of().toHexDigits(boot))
                .append(" wall=").append(Times.Time.now().nanos())
                .append(" records=").append(records.size())
                .append(" digest=").append(HexFormat.of().toHexDigits(records.digest()))
                .append(" clients=").append(clients)
                .append(' ').append(records.counts());
        neighbours.values().stream()
                .filter(neighbour -> neighbour.link != null)
                .forEach(neighbour -> line.append(" link=").append(neighbour.link.standing()).append(neighbour.name));
        return line.toString();
    }

    /** Whether the log was last told of another refusal: whoever is refused tries again every second. */
    boolean isNews(String refusal) {
        boolean isNews = !lastRefusal.equals(refusal);
        lastRefusal = refusal;
        return isNews;
    }
}
