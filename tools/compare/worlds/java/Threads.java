import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/**
 * The server of herd-mio in the classical style: a blocking thread for each client, two for each
 * neighbour, and a lock around the shared table. It uses only the standard library.
 *
 * <p>Some parts are left out on purpose, here and in {@link Nio}: the journal, Google's New API,
 * the time limits of 10 s for a line and of 60 s for taking an answer, and the limits on the number
 * of clients, records and unproven peers.
 */
final class Threads {
    private static final String PROGRAM = "herd-java-threads";
    private static final int READ_BYTES = 16 * 1024;
    private static final int BACKLOG = 4096;
    /** The pause after a failed accept. */
    private static final int ACCEPT_PAUSE_MS = 100;
    /**
     * The time limits of a stop: for the clients' last answers, then for the goodbyes to the
     * neighbours.
     */
    private static final int STOP_MS = 5_000;
    private static final int GOODBYE_MS = 1_000;

    private final Herd herd;
    private final Places places;
    private final ExecutorService clients = Executors.newCachedThreadPool(Log.daemon("client"));
    private final ExecutorService links = Executors.newCachedThreadPool(Log.daemon("link"));
    private final Set<Socket> clientSockets = ConcurrentHashMap.newKeySet();

    private Threads(Herd herd, Places places) {
        this.herd = herd;
        this.places = places;
    }

    public static void main(String[] arguments) throws InterruptedException {
        Options options = Options.parse(PROGRAM, arguments);
        try {
            Places places = new Places(options);
            Log.start(options.logFile(), options.logLevel());
            ServerSocket clientsDoor = door(options.listen());
            ServerSocket linksDoor = door(options.listenPeers());
            Threads server = new Threads(new Herd(options), places);
            server.start(options, clientsDoor, linksDoor);
        } catch (Options.Mistake mistake) {
            Options.fail(PROGRAM, 2, mistake.getMessage());
        } catch (FileNotFoundException e) {
            Options.fail(PROGRAM, 2, "cannot write the log: " + e.getMessage() + "; choose another place with --log-file");
        } catch (IOException e) {
            Options.fail(PROGRAM, 1, e.getMessage());
        }
        Thread.currentThread().join(); // Blocks until a signal ends the program.
    }

    private static ServerSocket door(String address) throws IOException, Options.Mistake {
        ServerSocket door = new ServerSocket();
        try {
            door.bind(Options.address(address), BACKLOG);
        } catch (IOException e) {
            throw new IOException("cannot listen on " + address + ": " + e.getMessage(), e);
        }
        return door;
    }

    private void start(Options options, ServerSocket clientsDoor, ServerSocket linksDoor) {
        String ready = PROGRAM + " " + herd.name + ": clients on " + Log.plain(clientsDoor.getLocalSocketAddress())
                + ", neighbours on " + Log.plain(linksDoor.getLocalSocketAddress());
        Log.info(() -> ready + ", process " + ProcessHandle.current().pid());
        Runtime.getRuntime().addShutdownHook(new Thread(() -> stop(clientsDoor, linksDoor)));
        System.out.println(ready);
        System.out.flush();
        links.execute(() -> accept(clientsDoor, socket -> clients.execute(() -> serveClient(socket))));
        links.execute(() -> accept(linksDoor, socket -> links.execute(() -> serveStranger(socket))));
        options.dial().forEach(dialled -> links.execute(() -> keepDialling(dialled)));
    }

    private static void accept(ServerSocket door, Consumer<Socket> serve) {
        while (!door.isClosed()) {
            try {
                Socket socket = door.accept();
                // Answers are written whole, so waiting to fill a segment would only delay them.
                socket.setTcpNoDelay(true);
                serve.accept(socket);
            } catch (IOException | RejectedExecutionException e) {
                if (!door.isClosed()) {
                    Log.warn("cannot accept connections: " + e.getMessage() + "; trying again in " + ACCEPT_PAUSE_MS + " ms");
                    pause(ACCEPT_PAUSE_MS);
                }
            }
        }
    }

    private static void pause(long ms) {
        try {
            Thread.sleep(ms);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    /** Handles SIGTERM. The exit status would be 143, so the program ends here with 0. */
    private void stop(ServerSocket clientsDoor, ServerSocket linksDoor) {
        try {
            Log.info(() -> "stopping");
            herd.isStopping = true;
            clientsDoor.close();
            linksDoor.close();
            // The clients stop first, because their last updates have to reach the neighbours.
            clientSockets.forEach(Threads::endInput);
            clients.shutdown();
            clients.awaitTermination(STOP_MS, TimeUnit.MILLISECONDS);
            herd.locked(() -> herd.neighbours.values().stream()
                    .filter(neighbour -> neighbour.link != null)
                    .forEach(neighbour -> neighbour.link.stop()));
            links.shutdown();
            links.awaitTermination(GOODBYE_MS, TimeUnit.MILLISECONDS);
        } catch (IOException | InterruptedException e) {
            Log.warn("stopping in a hurry: " + e.getMessage());
        } finally {
            Runtime.getRuntime().halt(0);
        }
    }

    /** Ends a thread's wait for the client's next command. */
    private static void endInput(Socket socket) {
        try {
            socket.shutdownInput();
        } catch (IOException e) {
            // The connection has ended already.
        }
    }

    private void serveClient(Socket socket) {
        Client client = new Client(herd, socket.getRemoteSocketAddress());
        clientSockets.add(socket);
        try (socket) {
            converse(socket, client);
        } catch (IOException | InterruptedException e) {
            // A client may disconnect at any time. That is no problem.
        } finally {
            clientSockets.remove(socket);
            client.lost();
        }
    }

    private void converse(Socket socket, Client client) throws IOException, InterruptedException {
        InputStream in = socket.getInputStream();
        byte[] buffer = new byte[READ_BYTES];
        boolean isAtEnd = false;
        while (true) {
            Client.Next next = client.answerLines(isAtEnd);
            // One write answers all lines of one read, after the neighbours have got the updates.
            // If the client does not read its answers, this thread blocks here, and does not read
            // from the client.
            if (!client.output.isEmpty()) {
                herd.awaitTold(client.takeSeq());
                client.output.writeTo(socket.getOutputStream());
            }
            switch (next) {
                case ASK -> client.answered(places.ask(client.question()).join());
                case HANG_UP -> {
                    hangUp(socket);
                    return;
                }
                case READ -> {
                    if (isAtEnd) {
                        return;
                    }
                    int count = in.read(buffer);
                    if (count < 0 && herd.isStopping) {
                        hangUp(socket);
                        return;
                    }
                    isAtEnd = count < 0;
                    client.input.bytes.append(buffer, Math.max(count, 0));
                }
            }
        }
    }

    /**
     * Reads the rest of the input. A close with unread input would reset the connection, and the
     * peer could lose the last output (RFC 9293 §3.6.1).
     */
    private static void hangUp(Socket socket) throws IOException {
        socket.shutdownOutput();
        socket.setSoTimeout(Link.LINGER_MS);
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(Link.LINGER_MS);
        byte[] ignored = new byte[READ_BYTES];
        while (socket.getInputStream().read(ignored) >= 0 && System.nanoTime() < end) {
            // This input is dropped.
        }
    }

    private void serveStranger(Socket socket) {
        Link link = Link.accepted(herd, Log.plain(socket.getRemoteSocketAddress()));
        run(socket, link);
        herd.locked(link::tellLog);
    }

    private void keepDialling(Options.Dialled dialled) {
        Herd.Neighbour neighbour = herd.neighbours.get(dialled.name());
        Link.Dialling dialling = new Link.Dialling(dialled);
        while (!herd.isStopping) {
            Socket socket = new Socket();
            try {
                socket.connect(Options.address(dialled.address()), Link.CONNECT_MS);
                socket.setTcpNoDelay(true);
                Link link = Link.dialled(herd, neighbour, Log.plain(socket.getRemoteSocketAddress()));
                run(socket, link);
                herd.locked(() -> dialling.ended(link));
            } catch (IOException | Options.Mistake e) {
                dialling.failed(e.getMessage());
            }
            pause(dialling.nextWaitMs());
        }
    }

    /**
     * Runs a link from its greeting to its end. This thread reads, and another one writes. There
     * have to be two. If a server did not read while it writes, two servers that write to each
     * other at the same time would wait for ever.
     */
    private void run(Socket socket, Link link) {
        Log.daemon("link").newThread(() -> tell(socket, link)).start();
        long began = System.nanoTime();
        byte[] buffer = new byte[READ_BYTES];
        try (socket) {
            socket.setSoTimeout(Link.PROOF_MS);
            int count;
            while ((count = socket.getInputStream().read(buffer)) >= 0) {
                herd.lock.lock();
                try {
                    boolean wasLinked = link.isLinked();
                    link.input.bytes.append(buffer, count);
                    link.act();
                    herd.news.signalAll(); // The other thread may have to answer.
                    if (link.isLinked() && !wasLinked) {
                        socket.setSoTimeout(Link.SILENCE_MS);
                    }
                    if (!link.wasLinked() && System.nanoTime() - began > TimeUnit.MILLISECONDS.toNanos(Link.PROOF_MS)) {
                        throw new SocketTimeoutException();
                    }
                } finally {
                    herd.lock.unlock();
                }
            }
            herd.locked(() -> link.lost("it closed the connection"));
        } catch (SocketTimeoutException e) {
            herd.locked(link::silent);
        } catch (IOException e) {
            herd.locked(() -> link.lost(e.getMessage()));
        }
    }

    /** Sends the neighbour all output, and a heartbeat when there is none. */
    private void tell(Socket socket, Link link) {
        try {
            while (true) {
                byte[] batch;
                long position;
                herd.lock.lock();
                try {
                    long patience = TimeUnit.MILLISECONDS.toNanos(Link.HEARTBEAT_MS);
                    link.pull();
                    link.confirm();
                    while (link.output.isEmpty() && !link.isClosing()) {
                        // The neighbour does not lack skipped records.
                        link.written(link.position());
                        long wait = Math.min(patience, link.confirmInNs());
                        patience -= wait - herd.news.awaitNanos(wait);
                        link.pull();
                        link.confirm();
                        if (patience <= 0) {
                            link.beat();
                            patience = TimeUnit.MILLISECONDS.toNanos(Link.HEARTBEAT_MS);
                        }
                    }
                    batch = link.output.take();
                    position = link.position();
                } finally {
                    herd.lock.unlock();
                }
                if (batch.length == 0) {
                    break; // The link is closing, and all output is sent.
                }
                socket.getOutputStream().write(batch);
                herd.locked(() -> link.written(position));
            }
            socket.shutdownOutput();
            socket.setSoTimeout(Link.LINGER_MS);
        } catch (IOException | InterruptedException e) {
            herd.locked(() -> link.lost(e.getMessage()));
        }
    }
}
