//! `herd-tokio`: the server of herd-mio in the usual style of tokio programs.
//!
//! It has one OS thread (the `current_thread` runtime), and a task for each client and each
//! neighbour. A mutex protects the shared state, and is never held across an `.await`. herd-mio has
//! explicit states. Here the frames of suspended `async fn`s hold the state.
//!
//! ```text
//!   main.rs ──► client.rs ──► message.rs, time.rs      parses lines
//!      │            ├───────► places.rs                HTTPS to Google Places
//!      ├──────► link.rs, proof.rs                      the neighbours' protocol
//!      ├──────► herd.rs ────► records.rs               shared by all tasks: neighbours and records
//!      └──────► log.rs
//! ```
//!
//! Some parts are left out on purpose: the journal, Google's New API, the time limit of 10 s for a
//! line, and the limits on the number of clients, records and unproven peers.

mod cli;
mod client;
mod herd;
mod lines;
mod link;
mod log;
mod message;
mod places;
mod proof;
mod records;
mod time;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use cli::Cli;
use herd::Server;
use places::Places;

/// The number of connections that the system queues for `accept`. The system may have a lower
/// limit.
const ACCEPT_BACKLOG: u32 = 4096;
/// The pause after a failed `accept`, for example without free descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The time limit for the clients' last answers when the server stops.
const STOP: Duration = Duration::from_secs(5);
/// The time limit for the goodbyes to the neighbours after that.
const GOODBYE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = match Cli::from_arguments() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let places = match Places::new(&cli) {
        Ok(places) => places,
        Err(what) => return cli::mistake(&what),
    };
    let _log = match log::start(&cli.log_file, cli.log_level.into()) {
        Ok(log) => log,
        Err(error) => {
            let path = cli.log_file.display();
            return cli::mistake(&format!(
                "cannot write the log {path}: {error}; choose another place with --log-file"
            ));
        }
    };
    if let Err(error) = rlimit::increase_nofile_limit(rlimit::INFINITY) {
        warn!("cannot raise the limit of open files: {error}");
    }
    match run(cli, places) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            tracing::error!("{what}");
            let _ = writeln!(io::stderr(), "herd-tokio: {what}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli, places: Places) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    let served = runtime.block_on(serve(cli, places));
    // A name look-up in a thread may be under way. The end does not wait for it.
    runtime.shutdown_background();
    served
}

async fn serve(cli: Cli, places: Places) -> Result<(), String> {
    let (clients_door, clients_address) = listen(&cli.listen).await?;
    let (links_door, links_address) = listen(&cli.listen_peers).await?;
    let catch = |kind| signal(kind).map_err(|error| format!("cannot catch signals: {error}"));
    let mut terminate = catch(SignalKind::terminate())?;
    let mut interrupt = catch(SignalKind::interrupt())?;

    let dialled = cli.dial.clone();
    let name = cli.name.clone();
    let server = Arc::new(Server::new(cli, places)?);
    let ready =
        format!("herd-tokio {name}: clients on {clients_address}, neighbours on {links_address}");
    info!("{ready}, process {}", std::process::id());
    // A closed standard output is ignored: the server can still serve.
    let _ = writeln!(io::stdout(), "{ready}");

    let (clients, links) = (TaskTracker::new(), TaskTracker::new());
    let mut doors = JoinSet::new();
    doors.spawn(accept(clients_door, {
        let (clients, server) = (clients.clone(), server.clone());
        move |stream| {
            clients.spawn(client::serve(stream, server.clone()));
        }
    }));
    doors.spawn(accept(links_door, {
        let (links, server) = (links.clone(), server.clone());
        move |stream| {
            links.spawn(link::accepted(stream, server.clone()));
        }
    }));
    for neighbour in dialled {
        links.spawn(link::keep_dialling(neighbour, server.clone()));
    }

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping");
    doors.shutdown().await;
    // The clients stop first, because their last updates have to reach the neighbours.
    stop(&server.stop_clients, &clients, STOP).await;
    stop(&server.stop_links, &links, GOODBYE).await;
    info!("stopped");
    Ok(())
}

/// `TcpListener::bind`, with a longer queue of connections that wait to be accepted.
async fn listen(address: &str) -> Result<(TcpListener, SocketAddr), String> {
    let cannot = |error| format!("cannot listen on {address}: {error}");
    let mut found = lookup_host(address).await.map_err(cannot)?;
    let Some(address) = found.next() else {
        return Err(format!("cannot listen on {address}: it has no address"));
    };
    let open = |address: SocketAddr| {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(ACCEPT_BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    open(address).map_err(cannot)
}

async fn accept(door: TcpListener, admit: impl Fn(TcpStream)) {
    loop {
        match door.accept().await {
            Ok((stream, _)) => {
                // Answers are written whole, so waiting to fill a segment would only delay them. A
                // failure costs only speed.
                let _ = stream.set_nodelay(true);
                admit(stream);
            }
            Err(error) => {
                warn!(
                    "cannot accept connections: {error}; trying again in {} ms",
                    ACCEPT_PAUSE.as_millis()
                );
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Stops tasks, and waits for them for at most `patience`.
async fn stop(word: &CancellationToken, tasks: &TaskTracker, patience: Duration) {
    word.cancel();
    tasks.close();
    if timeout(patience, tasks.wait()).await.is_err() {
        info!("{} connections are cut off", tasks.len());
    }
}
