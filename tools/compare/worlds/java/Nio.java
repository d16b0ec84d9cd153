import java.io.FileNotFoundException;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.PriorityQueue;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;

/**
 * The server of herd-mio as a loop. One thread runs around one Selector, and blocks nowhere else,
 * except for the look-up of a neighbour's host name. Other threads ask Places, and their answers
 * come back through a queue. The protocol is in the same classes as in {@link Threads}. This class
 * reads and writes. It uses only the standard library.
 */
final class Nio {
    private static final String PROGRAM = "herd-java-nio";
    private static final int READ_BYTES = 64 * 1024;
    private static final int BACKLOG = 4096;
    /** With more output than this, a client is not read. */
    private static final int OUTPUT_HIGH_BYTES = 256 * 1024;
    /** The pause after a failed accept. */
    private static final int ACCEPT_PAUSE_MS = 100;
    /**
     * The time limits of a stop: for the clients' last answers, then for the goodbyes to the
     * neighbours.
     */
    private static final int STOP_MS = 5_000;
    private static final int GOODBYE_MS = 1_000;
    private static final int LOOK_MS = 500;

    private final Herd herd;
    private final Places places;
    private final Selector selector;
    private final ByteBuffer scratch = ByteBuffer.allocateDirect(READ_BYTES);
    private final List<ServerSocketChannel> doors = new ArrayList<>();
    private final Set<Connection> connections = new HashSet<>();
    /** The connections to neighbours and to unproven peers. */
    private final List<LinkConnection> links = new ArrayList<>();
    /** Connections whose output or state may have changed in this turn. */
    private final Set<Connection> touched = new HashSet<>();
    /** Work that other threads want the loop to do. */
    private final Queue<Runnable> fromOthers = new ConcurrentLinkedQueue<>();
    private final PriorityQueue<Timer> timers = new PriorityQueue<>();
    private boolean saidGoodbye;
    private boolean isDone;

    /** Work for a certain time. */
    private record Timer(long atNs, Runnable work) implements Comparable<Timer> {
        @Override
        public int compareTo(Timer other) {
            return Long.signum(atNs - other.atNs);
        }
    }

    private Nio(Herd herd, Places places) throws IOException {
        this.herd = herd;
        this.places = places;
        this.selector = Selector.open();
    }

    public static void main(String[] arguments) {
        Options options = Options.parse(PROGRAM, arguments);
        try {
            Places places = new Places(options);
            Log.start(options.logFile(), options.logLevel());
            new Nio(new Herd(options), places).serve(options);
        } catch (Options.Mistake mistake) {
            Options.fail(PROGRAM, 2, mistake.getMessage());
        } catch (FileNotFoundException e) {
            Options.fail(PROGRAM, 2, "cannot write the log: " + e.getMessage() + "; choose another place with --log-file");
        } catch (IOException e) {
            Options.fail(PROGRAM, 1, e.getMessage());
        }
    }

    private void serve(Options options) throws IOException, Options.Mistake {
        ServerSocketChannel clientsDoor = door(options.listen(), channel -> new ClientConnection(channel));
        ServerSocketChannel linksDoor = door(options.listenPeers(), channel -> new LinkConnection(channel));
        String ready = PROGRAM + " " + herd.name + ": clients on " + Log.plain(clientsDoor.getLocalAddress())
                + ", neighbours on " + Log.plain(linksDoor.getLocalAddress());
        Log.info(() -> ready + ", process " + ProcessHandle.current().pid());
        Thread loop = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> stopFromOutside(loop)));
        System.out.println(ready);
        System.out.flush();
        // The classes that are shared with Threads expect the lock. It is taken once here, and no
        // other thread takes it.
        herd.lock.lock();
        options.dial().forEach(dialled -> new Dialler(dialled).dial());
        while (!isDone) {
            turn();
        }
        herd.lock.unlock();
    }

    /** Handles an accepted connection. */
    private interface Admit {
        void admit(SocketChannel channel) throws IOException;
    }

    private ServerSocketChannel door(String address, Admit admit) throws IOException, Options.Mistake {
        ServerSocketChannel door = ServerSocketChannel.open();
        try {
            door.setOption(StandardSocketOptions.SO_REUSEADDR, true);
            door.bind(Options.address(address), BACKLOG);
        } catch (IOException e) {
            throw new IOException("cannot listen on " + address + ": " + e.getMessage(), e);
        }
        door.configureBlocking(false);
        door.register(selector, SelectionKey.OP_ACCEPT, admit);
        doors.add(door);
        return door;
    }

    /**
     * One turn: wait, read and act, then write. The neighbours come first, so that they get an
     * update before its client gets the answer.
     */
    private void turn() throws IOException {
        long patienceNs = timers.isEmpty() ? Long.MAX_VALUE : timers.peek().atNs - System.nanoTime();
        if (patienceNs <= 0) {
            selector.selectNow(this::ready);
        } else {
            selector.select(this::ready, TimeUnit.NANOSECONDS.toMillis(patienceNs) + 1);
        }
        for (Runnable work = fromOthers.poll(); work != null; work = fromOthers.poll()) {
            work.run();
        }
        while (!timers.isEmpty() && timers.peek().atNs <= System.nanoTime()) {
            timers.poll().work.run();
        }
        if (herd.isStopping && herd.clients == 0) {
            sayGoodbye();
        }
        // A copy, because a link that ends leaves the list.
        for (LinkConnection link : List.copyOf(links)) {
            link.flush();
        }
        touched.forEach(Connection::flush);
        touched.clear();
        isDone |= saidGoodbye && connections.isEmpty();
    }

    private void later(long ms, Runnable work) {
        timers.add(new Timer(System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(ms), work));
    }

    private void ready(SelectionKey key) {
        if (key.isValid() && key.isAcceptable()) {
            accept(key);
        } else if (key.attachment() instanceof Connection connection) {
            connection.ready(key);
            touched.add(connection);
        }
    }

    private void accept(SelectionKey key) {
        ServerSocketChannel door = (ServerSocketChannel) key.channel();
        try {
            for (SocketChannel channel = door.accept(); channel != null; channel = door.accept()) {
                try {
                    ((Admit) key.attachment()).admit(channel);
                } catch (IOException e) {
                    channel.close(); // It has closed already.
                }
            }
        } catch (IOException e) {
            Log.warn("cannot accept connections: " + e.getMessage() + "; trying again in " + ACCEPT_PAUSE_MS + " ms");
            key.interestOps(0);
            later(ACCEPT_PAUSE_MS, () -> {
                if (key.isValid()) {
                    key.interestOps(SelectionKey.OP_ACCEPT);
                }
            });
        }
    }

    /** Handles SIGTERM. The exit status would be 143, so the program ends here with 0. */
    private void stopFromOutside(Thread loop) {
        fromOthers.add(this::stop);
        selector.wakeup();
        try {
            loop.join(STOP_MS + 2 * GOODBYE_MS);
        } catch (InterruptedException e) {
            Log.warn("stopping in a hurry");
        }
        Runtime.getRuntime().halt(0);
    }

    private void stop() {
        Log.info(() -> "stopping");
        herd.isStopping = true;
        for (ServerSocketChannel door : doors) {
            try {
                door.close();
            } catch (IOException e) {
                Log.warn("cannot close a port: " + e.getMessage());
            }
        }
        // The clients stop first, because their last updates have to reach the neighbours.
        touched.addAll(connections);
        later(STOP_MS, this::sayGoodbye);
    }

    private void sayGoodbye() {
        if (!saidGoodbye) {
            saidGoodbye = true;
            links.forEach(LinkConnection::stop);
            later(GOODBYE_MS, () -> isDone = true);
        }
    }

    /** One socket. */
    private abstract class Connection {
        final SocketChannel channel;
        final SelectionKey key;
        /** The peer sends no more. */
        boolean isAtEnd;
        /**
         * The output side is shut down. The input is read for a while, so that a reset does not
         * destroy the last output.
         */
        boolean isFinished;
        boolean isClosed;

        Connection(SocketChannel channel, int interest) throws IOException {
            this.channel = channel;
            channel.configureBlocking(false);
            // Answers are written whole.
            channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
            key = channel.register(selector, interest, this);
            connections.add(this);
        }

        /** The output that is not written yet. */
        abstract Bytes output();

        /** Whether more output follows as soon as this is written. */
        boolean hasMore() {
            return false;
        }

        /** Handles received bytes. */
        abstract void received(ByteBuffer bytes);

        /** The peer sends no more, or the connection failed. */
        abstract void ended(String reason);

        /** Whether the socket should be read. */
        abstract boolean wantsRead();

        /** Whether the connection ends after its output is written. */
        abstract boolean isOver();

        void closed() {}

        void ready(SelectionKey key) {
            if (!key.isValid() || !key.isReadable()) {
                return;
            }
            try {
                scratch.clear();
                if (channel.read(scratch) < 0) {
                    isAtEnd = true;
                    ended("it closed the connection");
                } else if (!isFinished) {
                    received(scratch.flip());
                }
            } catch (IOException e) {
                fail(e);
            }
        }

        void fail(IOException e) {
            ended(String.valueOf(e.getMessage()));
            close();
        }

        /** Writes as much as the socket takes, then sets the interest of the selector. */
        void flush() {
            if (isClosed) {
                return;
            }
            Bytes output = output();
            try {
                if (!output.isEmpty()) {
                    output.writeTo(channel);
                }
                if (output.isEmpty() && isOver()) {
                    if (isAtEnd) {
                        close();
                        return;
                    }
                    finish();
                }
                boolean reads = isFinished || (wantsRead() && !isAtEnd);
                int interest = (reads ? SelectionKey.OP_READ : 0) | (output.isEmpty() && !hasMore() ? 0 : SelectionKey.OP_WRITE);
                if (key.interestOps() != interest) {
                    key.interestOps(interest);
                }
            } catch (IOException e) {
                fail(e);
            }
        }

        private void finish() throws IOException {
            if (!isFinished) {
                isFinished = true;
                channel.shutdownOutput();
                later(Link.LINGER_MS, this::close);
            }
        }

        void close() {
            if (isClosed) {
                return;
            }
            isClosed = true;
            connections.remove(this);
            try {
                channel.close();
            } catch (IOException e) {
                Log.warn("cannot close a connection: " + e.getMessage());
            }
            closed();
        }
    }

    private final class ClientConnection extends Connection {
        private final Client client;
        private Client.Next next = Client.Next.READ;

        ClientConnection(SocketChannel channel) throws IOException {
            super(channel, SelectionKey.OP_READ);
            client = new Client(herd, channel.getRemoteAddress());
        }

        @Override
        Bytes output() {
            return client.output;
        }

        @Override
        void received(ByteBuffer bytes) {
            client.input.bytes.append(bytes);
            goOn();
        }

        @Override
        void ended(String reason) {
            isAtEnd = true;
            goOn();
        }

        private void goOn() {
            if (next != Client.Next.READ) {
                return; // It waits for Places, or is closing.
            }
            next = client.answerLines(isAtEnd);
            if (next == Client.Next.ASK) {
                // The answer comes in another thread, or at once in this one.
                places.ask(client.question()).thenAccept(answer -> {
                    fromOthers.add(() -> answered(answer));
                    selector.wakeup();
                });
            }
        }

        private void answered(Places.Answer answer) {
            client.answered(answer);
            next = Client.Next.READ;
            goOn();
            touched.add(this);
        }

        @Override
        boolean wantsRead() {
            return next == Client.Next.READ && client.output.length() <= OUTPUT_HIGH_BYTES;
        }

        @Override
        boolean isOver() {
            return next == Client.Next.HANG_UP || (next == Client.Next.READ && (isAtEnd || herd.isStopping));
        }

        @Override
        void closed() {
            client.lost();
        }
    }

    private final class LinkConnection extends Connection {
        private final Link link;
        /** The dialler, if this server made the connection. */
        private final Dialler dialler;
        private final long beganNs = System.nanoTime();
        private long lastHeardNs = beganNs;
        private long lastSaidNs = beganNs;
        private boolean isConfirming;

        LinkConnection(SocketChannel channel) throws IOException {
            this(channel, Link.accepted(herd, Log.plain(channel.getRemoteAddress())), null);
        }

        LinkConnection(SocketChannel channel, Link link, Dialler dialler) throws IOException {
            super(channel, dialler == null ? SelectionKey.OP_READ : SelectionKey.OP_CONNECT);
            this.link = link;
            this.dialler = dialler;
            links.add(this);
            later(LOOK_MS, this::look);
        }

        @Override
        Bytes output() {
            return link.output;
        }

        @Override
        boolean hasMore() {
            return link.hasMore();
        }

        @Override
        void ready(SelectionKey key) {
            try {
                if (key.isValid() && key.isConnectable()) {
                    channel.finishConnect();
                }
                super.ready(key);
            } catch (IOException e) {
                fail(e);
            }
        }

        @Override
        void received(ByteBuffer bytes) {
            lastHeardNs = System.nanoTime();
            link.input.bytes.append(bytes);
            link.act();
            if (link.confirmInNs() < Long.MAX_VALUE && !isConfirming) {
                isConfirming = true;
                later(Link.CONFIRM_MS, this::confirm);
            }
        }

        private void confirm() {
            isConfirming = false;
            link.confirm();
        }

        @Override
        void ended(String reason) {
            link.lost(reason);
        }

        @Override
        void flush() {
            if (!channel.isConnected()) {
                return;
            }
            link.pull();
            if (!link.output.isEmpty()) {
                lastSaidNs = System.nanoTime();
            }
            super.flush();
        }

        /** Checks the time limits. */
        private void look() {
            if (isClosed) {
                return;
            }
            long now = System.nanoTime();
            long sinceNs = now - (link.wasLinked() ? lastHeardNs : beganNs);
            int patienceMs = link.wasLinked() ? Link.SILENCE_MS : channel.isConnected() ? Link.PROOF_MS : Link.CONNECT_MS;
            if (!link.isClosing() && sinceNs > TimeUnit.MILLISECONDS.toNanos(patienceMs)) {
                link.silent();
                close();
                return;
            }
            if (now - lastSaidNs > TimeUnit.MILLISECONDS.toNanos(Link.HEARTBEAT_MS - LOOK_MS)) {
                link.beat();
            }
            later(LOOK_MS, this::look);
        }

        @Override
        boolean wantsRead() {
            return true;
        }

        @Override
        boolean isOver() {
            return link.isClosing();
        }

        void stop() {
            link.stop();
        }

        @Override
        void closed() {
            links.remove(this);
            link.lost("closed");
            if (dialler == null) {
                link.tellLog();
            } else {
                dialler.ended(link);
            }
        }
    }

    /** Dials one neighbour again and again. */
    private final class Dialler {
        private final Options.Dialled dialled;
        private final Link.Dialling dialling;

        Dialler(Options.Dialled dialled) {
            this.dialled = dialled;
            this.dialling = new Link.Dialling(dialled);
        }

        void dial() {
            if (herd.isStopping) {
                return;
            }
            try {
                InetSocketAddress address = Options.address(dialled.address());
                SocketChannel channel = SocketChannel.open();
                Link link = Link.dialled(herd, herd.neighbours.get(dialled.name()), dialled.address());
                LinkConnection connection = new LinkConnection(channel, link, this);
                try {
                    channel.connect(address);
                } catch (IOException | RuntimeException e) {
                    connection.fail(e instanceof IOException io ? io : new IOException(e));
                }
            } catch (IOException | Options.Mistake e) {
                dialling.failed(e.getMessage());
                later(dialling.nextWaitMs(), this::dial);
            }
        }

        void ended(Link link) {
            dialling.ended(link);
            later(dialling.nextWaitMs(), this::dial);
        }
    }
}
