//! `herd-tokio`: the server of herd-mio, written the way tokio programs are written.
//!
//! One OS thread (the `current_thread` runtime); a task for each client and each neighbour; shared state behind a mutex that is
//! never held over an `.await`. What herd-mio keeps in explicit states is kept here in the frames of suspended `async fn`s.
//!
//! ```text
//!   main.rs ──► client.rs ──► message.rs, time.rs      what a line says
//!      │            ├───────► places.rs                HTTPS to Google Places
//!      ├──────► link.rs, proof.rs                      the neighbours' protocol
//!      ├──────► herd.rs ────► records.rs               what all tasks share: neighbours, and everybody's position
//!      └──────► log.rs
//! ```
//!
//! Left out, on purpose: the journal, Google's New API, the 10 s that a client has to finish a line, and limits on how many
//! clients, records and strangers there may be.

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

/// Connections that the system keeps waiting until they are accepted (it may have a lower limit of its own).
const ACCEPT_BACKLOG: u32 = 4096;
/// How long nobody is accepted after the system refused a new socket (out of descriptors, of memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for clients to be answered once the server was told to stop.
const STOP: Duration = Duration::from_secs(5);
/// Time for the neighbours to be told goodbye after that.
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
    // A name that is still being looked up, in a thread, is not waited for.
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
    // Whoever started it may have closed the standard output; that is no reason not to serve.
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
    // Clients first: what they were answered has to reach the neighbours.
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
                // Answers are written whole; waiting to fill a segment would only delay them. A failure costs speed alone.
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

/// Tells tasks to stop, and waits for them, but not for ever.
async fn stop(word: &CancellationToken, tasks: &TaskTracker, patience: Duration) {
    word.cancel();
    tasks.close();
    if timeout(patience, tasks.wait()).await.is_err() {
        info!("{} connections are cut off", tasks.len());
    }
}
