import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** The command line and the environment. */
record Options(
        String name, String listen, String listenPeers, List<Dialled> dial, List<String> accept,
        String placesUrl, String placesCa, String logFile, String logLevel) {

    /** A neighbour that this server connects to. */
    record Dialled(String name, String address) {}

    /** A mistake in the command line, as a message for the user. */
    static final class Mistake extends Exception {
        private static final long serialVersionUID = 1;

        Mistake(String what) {
            super(what);
        }
    }

    private static final String HELP = """
            One server of a herd, written in Java.

            Usage: %s NAME --listen HOST:PORT --listen-peers HOST:PORT --log-file FILE [options]

              --listen HOST:PORT        where to listen for clients; port 0 lets the system choose
              --listen-peers HOST:PORT  where to listen for neighbours
              --dial NAME=HOST:PORT     a neighbour that this server connects to; may be repeated
              --accept NAME             a neighbour that connects to this server; may be repeated
              --places-url URL          whom to ask for places, https://host[:port] [default: https://maps.googleapis.com]
              --places-ca FILE          trust this certificate authority (PEM) for Places, instead of Java's own list
              --log-file FILE           where to log, appending
              --log-level info|warn     how much to log [default: info]

            Environment: HERD_SECRET is the secret that the herd's servers share, HERD_PLACES_KEY the key for Google Places.
            """;

    /**
     * Parses the command line: the name first, then the options. Exits after --help or a mistake.
     */
    static Options parse(String program, String[] arguments) {
        if (List.of(arguments).contains("--help")) {
            System.out.printf(HELP, program);
            System.exit(0);
        }
        try {
            return parse(arguments);
        } catch (Mistake mistake) {
            fail(program, 2, mistake.getMessage() + "; --help tells more");
            return null; // never reached
        }
    }

    /** Reports why the program ends, and exits. */
    static void fail(String program, int status, String what) {
        System.err.println(program + ": " + what);
        System.exit(status);
    }

    private static Options parse(String[] arguments) throws Mistake {
        if (arguments.length == 0 || arguments[0].startsWith("--")) {
            throw new Mistake("the first argument has to be the server's name");
        }
        String name = checkedName(arguments[0]);
        String listen = null, listenPeers = null, placesCa = null, logFile = null;
        String placesUrl = "https://maps.googleapis.com", logLevel = "info";
        List<Dialled> dial = new ArrayList<>();
        List<String> accept = new ArrayList<>();
        for (int at = 1; at < arguments.length; at += 2) {
            String option = arguments[at];
            if (at + 1 == arguments.length) {
                throw new Mistake(option + " needs a value");
            }
            String value = arguments[at + 1];
            switch (option) {
                case "--listen" -> listen = value;
                case "--listen-peers" -> listenPeers = value;
                case "--dial" -> dial.add(dialled(value));
                case "--accept" -> accept.add(checkedName(value));
                case "--places-url" -> placesUrl = value;
                case "--places-ca" -> placesCa = value;
                case "--log-file" -> logFile = value;
                case "--log-level" -> logLevel = value;
                default -> throw new Mistake("unexpected argument " + option);
            }
        }
        if (listen == null || listenPeers == null || logFile == null) {
            throw new Mistake("--listen, --listen-peers and --log-file are needed");
        }
        if (!logLevel.equals("info") && !logLevel.equals("warn")) {
            throw new Mistake("--log-level " + logLevel + " is neither info nor warn");
        }
        Set<String> seen = new HashSet<>(Set.of(name));
        List<String> others = new ArrayList<>(accept);
        dial.forEach(dialled -> others.add(dialled.name));
        for (String other : others) {
            if (!seen.add(other)) {
                throw new Mistake(other + " is named twice");
            }
        }
        address(listen);
        address(listenPeers);
        return new Options(name, listen, listenPeers, dial, accept, placesUrl, placesCa, logFile, logLevel);
    }

    private static Dialled dialled(String text) throws Mistake {
        int equals = text.indexOf('=');
        if (equals < 0) {
            throw new Mistake("--dial " + text + " is not NAME=HOST:PORT");
        }
        String address = text.substring(equals + 1);
        address(address);
        return new Dialled(checkedName(text.substring(0, equals)), address);
    }

    private static String checkedName(String name) throws Mistake {
        if (name.isEmpty() || !name.chars().allMatch(c -> '!' <= c && c <= '~') || name.equals(Link.OPERATOR)) {
            throw new Mistake("a server's name is printable ASCII without spaces, and not " + Link.OPERATOR);
        }
        return name;
    }

    /** Parses HOST:PORT. The look-up of a host's name may take a while. */
    static InetSocketAddress address(String text) throws Mistake {
        int colon = text.lastIndexOf(':');
        try {
            int port = Integer.parseInt(text.substring(colon + 1));
            return new InetSocketAddress(text.substring(0, colon).replaceAll("[\\[\\]]", ""), port);
        } catch (IllegalArgumentException | StringIndexOutOfBoundsException e) {
            throw new Mistake(text + " is not HOST:PORT");
        }
    }

    /** The value of an environment variable without white space around it. */
    static String variable(String name) {
        String text = System.getenv(name);
        return text == null ? "" : text.strip();
    }
}
