import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * A queue of bytes: appended at the end, taken from the front.
 *
 * <p>The protocol consists of bytes, not of characters. A part of it is held as a String in ISO
 * 8859-1, in which each character is one byte. So nothing is lost in either direction. The virtual
 * machine stores such a String with one byte per character too.
 */
final class Bytes {
    /** The memory that an empty queue keeps. */
    private static final int KEPT = 64 * 1024;

    private byte[] bytes = new byte[256];
    private int start;
    private int end;

    int length() {
        return end - start;
    }

    boolean isEmpty() {
        return start == end;
    }

    Bytes append(String text) {
        byte[] added = text.getBytes(StandardCharsets.ISO_8859_1);
        return append(added, added.length);
    }

    Bytes append(byte[] added, int count) {
        makeRoom(count);
        System.arraycopy(added, 0, bytes, end, count);
        end += count;
        return this;
    }

    Bytes append(ByteBuffer added) {
        int count = added.remaining();
        makeRoom(count);
        added.get(bytes, end, count);
        end += count;
        return this;
    }

    private void makeRoom(int count) {
        if (end + count <= bytes.length) {
            return;
        }
        int length = length();
        byte[] roomier = length + count <= bytes.length / 2 ? bytes : new byte[Math.max(2 * bytes.length, length + count)];
        System.arraycopy(bytes, start, roomier, 0, length);
        bytes = roomier;
        start = 0;
        end = length;
    }

    /** The index of the byte among the first {@code limit} bytes, or -1. */
    int indexOf(byte wanted, int limit) {
        int last = Math.min(end, start + limit);
        for (int at = start; at < last; at++) {
            if (bytes[at] == wanted) {
                return at - start;
            }
        }
        return -1;
    }

    /** The first {@code count} bytes. */
    String first(int count) {
        return new String(bytes, start, count, StandardCharsets.ISO_8859_1);
    }

    void drop(int count) {
        start += count;
        if (start == end) {
            start = end = 0;
            if (bytes.length > KEPT) {
                bytes = new byte[256];
            }
        }
    }

    /** Takes all bytes. */
    byte[] take() {
        byte[] all = Arrays.copyOfRange(bytes, start, end);
        drop(all.length);
        return all;
    }

    /** Writes all bytes, and blocks as long as that takes. */
    void writeTo(OutputStream out) throws IOException {
        out.write(bytes, start, length());
        drop(length());
    }

    /** Writes as many bytes as the channel takes without blocking. */
    void writeTo(SocketChannel channel) throws IOException {
        drop(channel.write(ByteBuffer.wrap(bytes, start, length())));
    }
}
