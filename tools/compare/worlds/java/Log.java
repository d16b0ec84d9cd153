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

/** The log: java.util.logging into a file, one line for each event. */
final class Log {
    private static final Logger LOGGER = Logger.getLogger("herd");
    /**
     * The time for which lines are collected before a write. A FileHandler would make a system call
     * for each.
     */
    private static final int GATHER_MS = 50;

    private Log() {}

    /** Starts the log, which appends to a file. */
    static void start(String path, String level) throws IOException {
        StreamHandler handler = new StreamHandler(new BufferedOutputStream(new FileOutputStream(path, true), 65536), new OneLine());
        handler.setEncoding(StandardCharsets.US_ASCII.name());
        LOGGER.setUseParentHandlers(false);
        LOGGER.addHandler(handler);
        LOGGER.setLevel(level.equals("info") ? Level.INFO : Level.WARNING);
        Executors.newSingleThreadScheduledExecutor(daemon("log"))
                .scheduleWithFixedDelay(handler::flush, GATHER_MS, GATHER_MS, TimeUnit.MILLISECONDS);
    }

    /** Makes threads that do not keep the program running. */
    static ThreadFactory daemon(String name) {
        return work -> {
            Thread thread = new Thread(work, name);
            thread.setDaemon(true);
            return thread;
        };
    }

    /** Logs an event. The line is made only if this level is logged. */
    static void info(Supplier<String> line) {
        LOGGER.info(line);
    }

    /** Logs a problem. */
    static void warn(String line) {
        LOGGER.warning(line);
    }

    /** An address as HOST:PORT. */
    static String plain(SocketAddress address) {
        InetSocketAddress inet = (InetSocketAddress) address;
        String host = inet.getAddress().getHostAddress();
        return (host.contains(":") ? "[" + host + "]" : host) + ":" + inet.getPort();
    }

    /**
     * Shows bytes (one per character) as printable ASCII. Other bytes and the backslash become
     * \xNN.
     */
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
