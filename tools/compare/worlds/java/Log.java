import java.io.BufferedOutputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.nio.charset.StandardCharsets;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.concurrent.Executors;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import java.util.logging.Formatter;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import java.util.logging.StreamHandler;

/** The log: java.util.logging into a file, one line an event. */
final class Log {
    private static final Logger LOGGER = Logger.getLogger("herd");
    /** How long lines gather before they are written: a FileHandler would make a system call for each. */
    private static final int GATHER_MS = 50;

    private Log() {}

    /** Begins to log into a file, appending. */
    static void start(String path, String level) throws IOException {
        StreamHandler handler = new StreamHandler(new BufferedOutputStream(new FileOutputStream(path, true), 65536), new OneLine());
        handler.setEncoding(StandardCharsets.US_ASCII.name());
        LOGGER.setUseParentHandlers(false);
        LOGGER.addHandler(handler);
        LOGGER.setLevel(level.equals("info") ? Level.INFO : Level.WARNING);
        Executors.newSingleThreadScheduledExecutor(daemon("log"))
                .scheduleWithFixedDelay(handler::flush, GATHER_MS, GATHER_MS, TimeUnit.MILLISECONDS);
    }

    /** Threads that do not keep the program running. */
    static ThreadFactory daemon(String name) {
        return work -> {
            Thread thread = new Thread(work, name);
            thread.setDaemon(true);
            return thread;
        };
    }

    /** Everything that happens. The line is made only if somebody wants it. */
    static void info(Supplier<String> line) {
        LOGGER.info(line);
    }

    /** Trouble. */
    static void warn(String line) {
        LOGGER.warning(line);
    }

    /** An address as HOST:PORT. */
    static String plain(SocketAddress address) {
        InetSocketAddress inet = (InetSocketAddress) address;
        String host = inet.getAddress().getHostAddress();
        return (host.contains(":") ? "[" + host + "]" : host) + ":" + inet.getPort();
    }

    /** Bytes (a character each) as printable ASCII: everything else, and the backslash, as \xNN. */
    static String escaped(String bytes) {
        StringBuilder text = new StringBuilder(bytes.length() + 16);
        for (int at = 0; at < bytes.length(); at++) {
            char c = bytes.charAt(at);
            if (' ' <= c && c <= '~' && c != '\\') {
                text.append(c);
            } else {
                text.append(String.format("\\x%02x", (int) c));
            }
        }
        return text.toString();
    }

    private static final class OneLine extends Formatter {
        private static final DateTimeFormatter TIME =
                DateTimeFormatter.ofPattern("yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'").withZone(ZoneOffset.UTC);

        @Override
        public String format(LogRecord record) {
            String level = record.getLevel() == Level.INFO ? " INFO " : " WARN ";
            return TIME.format(record.getInstant()) + level + record.getMessage() + "\n";
        }
    }
}
