import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.util.HexFormat;
import java.util.Locale;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * How the two ends of a link prove to one another that they know the herd's secret, without telling it: HMAC-SHA256 over who speaks,
 * both names and both nonces. The nonces make an old proof worthless, the speaker's side one that is sent back.
 */
final class Proof {
    /** Bytes of random that a side has never used before. */
    static final int NONCE_BYTES = 16;

    private static final SecureRandom RANDOM = new SecureRandom();

    private Proof() {}

    /** One end of a link: a name, and its nonce as hexadecimal digits. */
    record Party(String name, String nonce) {}

    /** What a side says to prove itself. */
    static String prove(String secret, String speaker, Party dialler, Party acceptor) {
        byte[] key = secret.getBytes(StandardCharsets.UTF_8);
        String text = String.join("\n", "herd-mio link 1", speaker, dialler.name, acceptor.name, dialler.nonce, acceptor.nonce, "");
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            // A key is filled up with zeros, so one zero is the same as none, which Java does not take.
            mac.init(new SecretKeySpec(key.length == 0 ? new byte[1] : key, "HmacSHA256"));
            return HexFormat.of().formatHex(mac.doFinal(text.getBytes(StandardCharsets.UTF_8)));
        } catch (GeneralSecurityException e) {
            throw new IllegalStateException("every Java has HmacSHA256", e);
        }
    }

    /** Compares in a time that does not tell how much of a wrong proof was right. */
    static boolean isSame(String claimed, String proof) {
        return MessageDigest.isEqual(
                claimed.toLowerCase(Locale.ROOT).getBytes(StandardCharsets.UTF_8), proof.getBytes(StandardCharsets.UTF_8));
    }

    static String nonce() {
        byte[] nonce = new byte[NONCE_BYTES];
        RANDOM.nextBytes(nonce);
        return HexFormat.of().formatHex(nonce);
    }

    /** A number that no other life of this process has. */
    static long boot() {
        return RANDOM.nextLong();
    }
}
