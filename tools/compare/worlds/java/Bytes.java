import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * Bytes that wait: appended at the end, taken from the front.
 *
 * <p>The protocol is about bytes, not characters. A piece of it is held here as a String in ISO 8859-1, where each character is one
 * byte and nothing is lost either way; that is also how the virtual machine stores such a String.
 */
final class Bytes {
    /** Memory that is kept when there are no bytes. */
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

    /** Where the byte is among the first {@code limit}, or -1. */
    int indexOf(byte wanted, int limit) {
        int last = Math.min(end, start + limit);
        for (int at = start; at < last; at++) {
            if (bytes[at] == wanted) {
                return at - start;
            }
        }
        return -1;
    }

    /** The first so many bytes. */
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

    /** Takes all of them. */
    byte[] take() {
        byte[] all = Arrays.copyOfRange(bytes, start, end);
        drop(all.length);
        return all;
    }

    /** Writes all of them, however long that takes. */
    void writeTo(OutputStream out) throws IOException {
        out.write(bytes, start, length());
        drop(length());
    }

    /** Writes as many as the channel takes now. */
    void writeTo(SocketChannel channel) throws IOException {
        drop(channel.write(ByteBuffer.wrap(bytes, start, length())));
    }
}
