import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.util.HexFormat;
import java.util.Locale;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * The proof with which both ends of a link show that they know the herd's secret, without sending
 * it. It is an HMAC-SHA256 over the speaker's side, both names and both nonces. The nonces make an
 * old proof invalid. The side makes a reflected proof invalid.
 */
final class Proof {
    /** The length of a nonce. Each connection has a new one. */
    static final int NONCE_BYTES = 16;

    private static final SecureRandom RANDOM = new SecureRandom();

    private Proof() {}

    /** One end of a link: a name, and its nonce as hexadecimal digits. */
    record Party(String name, String nonce) {}

    /** The proof of {@code speaker}. */
    static String prove(String secret, String speaker, Party dialler, Party acceptor) {
        byte[] key = secret.getBytes(StandardCharsets.UTF_8);
        String text = String.join("\n", "herd-mio link 1", speaker, dialler.name, acceptor.name, dialler.nonce, acceptor.nonce, "");
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            // HMAC pads a key with zeros. So one zero byte is the same as an empty key, which Java
            // refuses.
            mac.init(new SecretKeySpec(key.length == 0 ? new byte[1] : key, "HmacSHA256"));
            return HexFormat.of().formatHex(mac.doFinal(text.getBytes(StandardCharsets.UTF_8)));
        } catch (GeneralSecurityException e) {
            throw new IllegalStateException("every Java has HmacSHA256", e);
        }
    }

    /** Compares in a time that does not depend on the position of the first difference. */
    static boolean isSame(String claimed, String proof) {
        return MessageDigest.isEqual(
                claimed.toLowerCase(Locale.ROOT).getBytes(StandardCharsets.UTF_8), proof.getBytes(StandardCharsets.UTF_8));
    }

    static String nonce() {
        byte[] nonce = new byte[NONCE_BYTES];
        RANDOM.nextBytes(nonce);
        return HexFormat.of().formatHex(nonce);
    }

    /** A random id for this life of the process. */
    static long boot() {
        return RANDOM.nextLong();
    }
}
