import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;

/**
 * The table of records, and the feed of its changes.
 *
 * <p>Each client has one record: the AT line of its latest position, as the answering server wrote
 * it. An accepted change takes the next sequence number, and moves its record to the end of the
 * feed. A link is only a position in the feed, however old it is. A record that changed twice
 * meanwhile is sent once.
 */
final class Records {
    /** The origin of records from own clients. */
    static final long NOBODY = 0;

    /**
     * A record. Its origin is a neighbour in one life of its process. The record is not sent back
     * there.
     */
    record Entry(String line, Times.Order order, long seq, long teacher) {
        /** Whether this record wins against the other one. */
        boolean stands(Times.Order otherOrder, String otherLine) {
            int difference = order.compareTo(otherOrder);
            return difference > 0 || (difference == 0 && line.compareTo(otherLine) >= 0);
        }
    }

    private final Map<String, Entry> byClient = new HashMap<>();
    private final TreeMap<Long, Entry> feed = new TreeMap<>();
    private long lastSeq;
    private long digest;
    private long stale;
    private long ahead;
    private long behind;

    int size() {
        return byClient.size();
    }

    /** The sum of the hashes of all lines. Equal tables have equal digests. */
    long digest() {
        return digest;
    }

    /**
     * The counts of own clients' records that changed nothing, and of those with stamps far from
     * the server's clock.
     */
    String counts() {
        return "stale=" + stale + " refused=0 ahead=" + ahead + " behind=" + behind;
    }

    /** The sequence number of the latest change, or 0 before the first. */
    long lastSeq() {
        return lastSeq;
    }

    /** The AT line of a client without its LF, or null. */
    String line(String client) {
        Entry entry = byClient.get(client);
        return entry == null ? null : entry.line;
    }

    /**
     * Takes a record of an own client with this receipt time, if it wins. Returns whether it did.
     * If it would lose only because of another server's wrong clock, it gets the next epoch, and
     * wins everywhere.
     */
    boolean update(String line, String client, Times.Order order, Times.Time now) {
        int lead = order.lead(now);
        ahead += lead > 0 ? 1 : 0;
        behind += lead < 0 ? 1 : 0;
        Entry known = byClient.get(client);
        if (known != null) {
            long epoch = known.order.epoch();
            order = order.inEpoch(epoch);
            if (known.stands(order, line) && order.isHeldBackBy(known.order, now) && epoch < Times.Order.MAX_EPOCH) {
                order = order.inEpoch(epoch + 1);
            }
        }
        boolean isNews = offer(line, client, order, NOBODY);
        stale += isNews ? 0 : 1;
        return isNews;
    }

    /**
     * Takes a record if it is the newest of its client. Returns whether it did. The greater epoch
     * wins, then the later effective time, then the later stamp, then the greater bytes. This order
     * is total and the same on every server, so the order of arrival does not matter.
     */
    boolean offer(String line, String client, Times.Order order, long teacher) {
        Entry known = byClient.get(client);
        if (known != null) {
            if (known.stands(order, line)) {
                return false;
            }
            feed.remove(known.seq);
            digest -= hash(known.line);
        }
        lastSeq++;
        Entry entry = new Entry(line, order, lastSeq, teacher);
        byClient.put(client, entry);
        feed.put(lastSeq, entry);
        digest += hash(line);
        return true;
    }

    /**
     * Appends the records after the change {@code after}, oldest first, until {@code out} holds
     * {@code fullAt} bytes or no more are left. Records from {@code except} are skipped. Returns
     * the last change that is included or skipped.
     */
    long read(long after, long except, int fullAt, Bytes out) {
        for (Entry entry : feed.tailMap(after, false).values()) {
            if (out.length() >= fullAt) {
                return entry.seq - 1;
            }
            if (entry.teacher != except) {
                if (entry.order.epoch() > 0) {
                    out.append("EPOCH " + entry.order.epoch() + " ");
                }
                out.append(entry.line).append("\n");
            }
        }
        return lastSeq;
    }

    /**
     * The hash of a line, for the digest. All servers of a herd use this hash: eight bytes
     * (little-endian) at a time.
     */
    private static long hash(String line) {
        long hash = line.length();
        for (int start = 0; start < line.length(); start += 8) {
            long word = 0; // The last one is padded with zeros.
            for (int at = Math.min(start + 8, line.length()) - 1; at >= start; at--) {
                word = word << 8 | line.charAt(at);
            }
            hash = (hash ^ word) * 0x9e3779b97f4a7c15L;
            hash ^= hash >>> 32;
        }
        return hash;
    }
}
