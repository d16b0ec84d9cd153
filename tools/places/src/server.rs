//! The accepting thread, the threads that it starts, and the stop of all of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::connection;
use crate::ledger::{Admission, Until};
use crate::shared::Shared;

/// The pause after a failed `accept`. Most likely no descriptor was left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The greatest time for which a stop waits for the threads of connections.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Accepts until the ledger is stopping. The thread scope makes sure that all its threads have
/// ended when it returns.
pub(crate) fn accept(shared: &Shared, listener: &TcpListener) {
    thread::scope(|scope| {
        loop {
            let socket = match listener.accept() {
                Ok((socket, _)) => Arc::new(socket),
                Err(_) if shared.ledger.is_stopping() => return,
                Err(_) => {
                    // Usually no descriptor was left. The end of a connection frees one.
                    shared
                        .ledger
                        .wait(&Until::Time(Instant::now() + ACCEPT_PAUSE), ACCEPT_PAUSE);
                    continue;
                }
            };
            match shared.ledger.admit(&socket, shared.max_connections) {
                Admission::Stopping => return,
                // Dropping the socket closes it.
                Admission::Full => {}
                Admission::Welcome(visit) => {
                    let serve = move || {
                        connection::serve(shared, &visit, socket);
                        // The socket is closed before the ledger's entry is removed.
                        drop(visit);
                    };
                    // If no thread can be started, dropping the closure closes the connection.
                    let _ = thread::Builder::new()
                        .name("places".to_owned())
                        .spawn_scoped(scope, serve);
                }
            }
        }
    });
}

/// Ends `accept` and all its threads, and waits for them.
pub(crate) fn stop(shared: &Shared, address: SocketAddr, accepting: thread::JoinHandle<()>) {
    shared.ledger.stop();
    // The connections end first, because they free descriptors, and `knock` needs one.
    let emptied = shared
        .ledger
        .wait_until(STOP_PATIENCE, |counts| counts.open_connections == 0);
    let knocked = accepting.is_finished() || knock(address);
    // The stop does not wait for a thread that does not end. The only known case is an observer
    // that blocks.
    if emptied && knocked {
        // A panic of the thread was already reported.
        let _ = accepting.join();
    }
}

/// Connects, so that a blocking `accept` returns.
fn knock(mut address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    let knocked: io::Result<TcpStream> =
        TcpStream::connect_timeout(&address, Duration::from_secs(1));
    knocked.is_ok()
}
