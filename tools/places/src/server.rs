//! The accepting thread, the threads it starts, and how all of them are stopped.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::connection;
use crate::ledger::{Admission, Until};
use crate::shared::Shared;

/// After an `accept` that failed (no descriptors left, most likely), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A stop waits so long for the threads of connections, then no longer.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Accepts until the ledger says stop. All threads it started have ended when it returns: that is what
/// a thread scope is.
pub(crate) fn accept(shared: &Shared, listener: &TcpListener) {
    thread::scope(|scope| {
        loop {
            let socket = match listener.accept() {
                Ok((socket, _)) => Arc::new(socket),
                Err(_) if shared.ledger.is_stopping() => return,
                Err(_) => {
                    // Usually no descriptor was left; a connection that ends gives one back.
                    shared
                        .ledger
                        .wait(&Until::Time(Instant::now() + ACCEPT_PAUSE), ACCEPT_PAUSE);
                    continue;
                }
            };
            match shared.ledger.admit(&socket, shared.max_connections) {
                Admission::Stopping => return,
                // Dropped, and so closed, unheard.
                Admission::Full => {}
                Admission::Welcome(visit) => {
                    let serve = move || {
                        connection::serve(shared, &visit, socket);
                        // The socket is closed by now; only then is the connection struck out.
                        drop(visit);
                    };
                    // If no thread can be had, the closure is dropped, and the connection with it.
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
    // First the connections, since they give descriptors back: the knock below needs one.
    let emptied = shared
        .ledger
        .wait_until(STOP_PATIENCE, |counts| counts.open_connections == 0);
    let knocked = accepting.is_finished() || knock(address);
    // A thread that will not end is left behind rather than waited for. The only one known of is that
    // of an observer that blocks.
    if emptied && knocked {
        // A panic on it was reported when it happened.
        let _ = accepting.join();
    }
}

/// A blocking `accept` ends when somebody connects.
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
