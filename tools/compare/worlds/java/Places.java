import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.ConnectException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpConnectTimeoutException;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpTimeoutException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executor;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLException;
import javax.net.ssl.TrustManagerFactory;

/**
 * Asks Google Places over HTTPS (the legacy Nearby Search). Java's HttpClient keeps connections and
 * uses them again. A few threads wait for its answers, which bounds the number of requests. Clients
 * with the same question at the same time share one request.
 */
final class Places {
    /** The time limit of an answer, with the wait for a connection. */
    private static final Duration PATIENCE = Duration.ofSeconds(10);
    private static final Duration CONNECT = Duration.ofSeconds(3);
    private static final String TOO_LATE = "Google Places did not answer in time; try again later";
    private static final int MAX_CALLS = 16;
    private static final int MAX_BODY_BYTES = 2 * 1024 * 1024;
    /** A shorter key would be found in many good answers by chance. Google's have 39 characters. */
    private static final int LEAST_KEY_BYTES = 8;

    private final HttpClient client;
    private final String origin;
    private final String key = Options.variable("HERD_PLACES_KEY");
    private final Executor callers = Executors.newFixedThreadPool(MAX_CALLS, Log.daemon("places"));
    private final ConcurrentHashMap<String, CompletableFuture<Answer>> calls = new ConcurrentHashMap<>();

    /** Google's own text (one byte per character), or why there is none, as advice for a client. */
    record Answer(String text, String error) {
        /** The source of the answer, for the log. */
        String source() {
            return error == null ? "from Places" : "an error of our own";
        }

        /** The JSON with at most {@code bound} places. */
        String json(int bound) {
            if (error != null) {
                return "{\"html_attributions\" : [], \"results\" : [], \"status\" : \"UNKNOWN_ERROR\", \"error_message\" : "
                        + Json.quoted(error) + "}";
            }
            StringBuilder kept = new StringBuilder(text.length());
            int from = 0;
            for (List<Integer> ends : Json.results(text)) {
                if (ends.size() > bound) {
                    kept.append(text, from, ends.get(bound - 1));
                    from = ends.get(ends.size() - 1);
                }
            }
            // An empty line would end the answer. So each run of newlines becomes one, and both
            // ends have none.
            String whole = kept.append(text, from, text.length()).toString();
            return whole.replaceAll("(\r\n|[\r\n])[\r\n]*", "$1").replaceAll("\\A[\r\n]+|[\r\n]+\\z", "");
        }
    }

    /** Reads the address of Places, the key, and the trusted authority. */
    Places(Options options) throws Options.Mistake {
        origin = options.placesUrl().replaceFirst("/+$", "");
        if (!origin.matches("https://[^/?#@]+")) {
            throw new Options.Mistake("--places-url " + origin + " is not https://host[:port]");
        }
        HttpClient.Builder builder = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).connectTimeout(CONNECT);
        if (options.placesCa() != null) {
            try {
                builder.sslContext(trusting(options.placesCa()));
            } catch (IOException | GeneralSecurityException e) {
                throw new Options.Mistake("--places-ca: " + e.getMessage());
            }
        }
        client = builder.build();
    }

    private static SSLContext trusting(String file) throws IOException, GeneralSecurityException {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream in = new FileInputStream(file)) {
            for (Certificate certificate : CertificateFactory.getInstance("X.509").generateCertificates(in)) {
                store.setCertificateEntry("ca-" + store.size(), certificate);
            }
        }
        if (store.size() == 0) {
            throw new IOException("there is no certificate in " + file);
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }

    /**
     * Asks Places, or waits for the same question of another client. Answers are shared, but not
     * cached.
     */
    CompletableFuture<Answer> ask(String question) {
        if (key.isEmpty()) {
            return CompletableFuture.completedFuture(failure(
                    "this server has no key for Google Places; its operator can give it one (HERD_PLACES_KEY)"));
        }
        CompletableFuture<Answer> call = new CompletableFuture<>();
        CompletableFuture<Answer> shared = call.whenComplete((answer, error) -> calls.remove(question));
        CompletableFuture<Answer> out = calls.putIfAbsent(question, shared);
        if (out != null) {
            return out;
        }
        long began = System.nanoTime();
        callers.execute(() -> call.complete(fetch(question)));
        call.completeOnTimeout(failure(TOO_LATE), PATIENCE.toMillis(), TimeUnit.MILLISECONDS);
        call.thenAccept(answer -> {
            String took = String.format(" (%.6f s)", (System.nanoTime() - began) / 1e9);
            if (answer.error == null) {
                Log.info(() -> "places call " + question + ": " + answer.text.length() + " bytes" + took);
            } else {
                Log.warn("places call " + question + ": " + answer.error + took);
            }
        });
        return shared;
    }

    private static Answer failure(String reason) {
        return new Answer(null, reason);
    }

    private Answer fetch(String question) {
        String query = question + "&key=" + URLEncoder.encode(key, StandardCharsets.UTF_8);
        try {
            HttpRequest request = HttpRequest.newBuilder(URI.create(origin + "/maps/api/place/nearbysearch/json?" + query))
                    .header("Accept", "application/json")
                    .header("User-Agent", "herd-java/0.1.0")
                    .timeout(PATIENCE)
                    .build();
            HttpResponse<InputStream> response = client.send(request, HttpResponse.BodyHandlers.ofInputStream());
            byte[] body;
            try (InputStream in = response.body()) {
                body = in.readNBytes(MAX_BODY_BYTES + 1);
            }
            if (body.length > MAX_BODY_BYTES) {
                return failure("Google Places gave no answer that can be used: it was too large; try again later");
            }
            return judge(response.statusCode(), body);
        } catch (IllegalArgumentException e) {
            // The exception's own text is not used, because it contains the address with the key.
            return failure("the key for Google Places cannot be sent");
        } catch (HttpConnectTimeoutException | ConnectException e) {
            return failure("Google Places cannot be reached: no connection; try again later");
        } catch (HttpTimeoutException e) {
            return failure(TOO_LATE);
        } catch (SSLException e) {
            return failure("Google Places cannot be reached: its certificate or its TLS was refused: " + e.getMessage()
                    + "; its operator has to look at the certificate authority that it trusts (--places-ca)");
        } catch (IOException e) {
            return failure("Google Places gave no answer that can be used: " + e.getMessage() + "; try again later");
        } catch (InterruptedException e) {
            return failure("this server is stopping; ask another one");
        }
    }

    /**
     * Accepts Google's text with status 200, and its JSON of an error. A response that contains the
     * key is refused: an error page of a proxy could repeat it.
     */
    private Answer judge(int status, byte[] body) {
        String text = new String(body, StandardCharsets.ISO_8859_1);
        if (key.length() >= LEAST_KEY_BYTES && text.contains(key)) {
            return failure("Google Places answered with HTTP status " + status + ", and something that may not be shown");
        }
        boolean isObject = isUtf8(body) && Json.results(text) != null;
        if (isObject && (status == 200 || (400 <= status && status <= 599))) {
            return new Answer(text, null);
        }
        if (status == 200) {
            return failure("Google Places answered with something that is not JSON; try again later");
        }
        return failure("Google Places answered with HTTP status " + status + "; try again later");
    }

    private static boolean isUtf8(byte[] body) {
        try {
            // Reports bytes that String's constructor would replace.
            StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(body));
            return true;
        } catch (CharacterCodingException e) {
            return false;
        }
    }
}
