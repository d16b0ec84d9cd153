import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;

/**
 * The state that all connections share: this server, its neighbours, and the records of all
 * clients.
 */
final class Herd {
    /** A neighbour that takes no bytes for so long counts as slow. Clients do not wait for it. */
    private static final long SLOW_AFTER_MS = 100;

    final String name;
    final String secret = Options.variable("HERD_SECRET");
    /** The id of this life of the server: each start of the process has a new one. */
    final long boot = Proof.boot();

    /** Guards all fields below. A program with one thread never waits for it. */
    final ReentrantLock lock = new ReentrantLock();
    /** Signalled when there is something to send to a neighbour. */
    final Condition news = lock.newCondition();
    /** Signalled when a neighbour has got something, or its link has ended. */
    final Condition told = lock.newCondition();
    final Records records = new Records();
    final Map<String, Neighbour> neighbours = new LinkedHashMap<>();
    int clients;
    volatile boolean isStopping;
    private long lastSerial;
    private String lastRefusal = "";

    /** A server with which this one is or should be linked. */
    static final class Neighbour {
        final String name;
        final boolean weDial;
        Link link;
        /** The part of its feed that was received. A feed is a server's ordered list of changes. */
        Heard heard;

        Neighbour(String name, boolean weDial) {
            this.name = name;
            this.weDial = weDial;
        }
    }

    /**
     * The progress in a neighbour's feed: the neighbour's life, the last received change, and the
     * id of that life as the origin of records.
     */
    record Heard(long boot, long position, long teacher) {}

    Herd(Options options) {
        name = options.name();
        options.dial().forEach(dialled -> neighbours.put(dialled.name(), new Neighbour(dialled.name(), true)));
        options.accept().forEach(accepted -> neighbours.put(accepted, new Neighbour(accepted, false)));
    }

    /** Runs {@code work} with the lock held. */
    void locked(Runnable work) {
        lock.lock();
        try {
            work.run();
        } finally {
            lock.unlock();
        }
    }

    /** Counts one more client. Returns the number of its connection. */
    long clientCame() {
        lock.lock();
        try {
            clients++;
            return nextSerial();
        } finally {
            lock.unlock();
        }
    }

    /** A new number. */
    long nextSerial() {
        return ++lastSerial;
    }

    /** Takes a neighbour's record if it is the newest of its client. */
    void offer(String line, String client, Times.Order order, long teacher) {
        change(() -> records.offer(line, client, order, teacher));
    }

    /** Takes a record of an own client. Returns the number of the change, or 0 if there is none. */
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

    /** The AT line of a client without its LF, or null. */
    String line(String client) {
        lock.lock();
        try {
            return records.line(client);
        } finally {
            lock.unlock();
        }
    }

    /** Waits until all linked neighbours have got a change. It does not wait for slow ones. */
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

    /** The server's status, for an operator. */
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

    /**
     * Whether this refusal differs from the last logged one. A refused peer tries again every
     * second.
     */
    boolean isNews(String refusal) {
        boolean isNews = !lastRefusal.equals(refusal);
        lastRefusal = refusal;
        return isNews;
    }
}
