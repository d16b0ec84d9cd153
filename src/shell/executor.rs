//! What would block the loop is done here: asyncio's `run_in_executor`, with mio's `Waker` for `call_soon_threadsafe`.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mio::Waker;

/// Threads at most: a name server that hangs holds up one of them, not the other names.
const MAX_THREADS: usize = 4;

/// A look-up that is finished: the name, and its addresses or why there are none.
pub type LookedUp = (String, Result<Vec<IpAddr>, String>);

/// A few threads that look names up; they are started when they are first needed.
pub struct Executor {
    jobs: Sender<String>,
    queue: Arc<Mutex<Receiver<String>>>,
    results: Receiver<LookedUp>,
    report: Sender<LookedUp>,
    waker: Arc<Waker>,
    /// Jobs handed over and not finished.
    busy: Arc<AtomicUsize>,
    threads: usize,
}

impl Executor {
    /// An executor without a thread yet; `waker` interrupts the loop's `poll` when a result is there.
    #[must_use]
    pub fn new(waker: Waker) -> Executor {
        let (jobs, queue) = channel();
        let (report, results) = channel();
        Executor {
            jobs,
            queue: Arc::new(Mutex::new(queue)),
            results,
            report,
            waker: Arc::new(waker),
            busy: Arc::default(),
            threads: 0,
        }
    }

    /// Looks `host` up; see [`Executor::finished`].
    pub fn look_up(&mut self, host: String) {
        let busy = self.busy.fetch_add(1, Ordering::SeqCst);
        if busy >= self.threads && self.threads < MAX_THREADS {
            match self.start_thread() {
                Ok(()) => self.threads += 1,
                // Another thread will come to it; without any, nobody would.
                Err(error) if self.threads == 0 => {
                    self.busy.fetch_sub(1, Ordering::SeqCst);
                    return self.fail(host, &error);
                }
                Err(_) => {}
            }
        }
        // The queue's other end is in `self`: sending can not fail.
        let _ = self.jobs.send(host);
    }

    fn fail(&self, host: String, error: &io::Error) {
        let _ = self
            .report
            .send((host, Err(format!("no thread to look it up: {error}"))));
        let _ = self.waker.wake();
    }

    fn start_thread(&self) -> io::Result<()> {
        let (queue, report, waker, busy) = (
            self.queue.clone(),
            self.report.clone(),
            self.waker.clone(),
            self.busy.clone(),
        );
        let work = move || {
            loop {
                let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(host) = job else { return };
                let found = look_up(&host);
                busy.fetch_sub(1, Ordering::SeqCst);
                if report.send((host, found)).is_err() || waker.wake().is_err() {
                    return; // the loop is gone
                }
            }
        };
        thread::Builder::new()
            .name("executor".into())
            .spawn(work)
            .map(drop)
    }

    /// The next result, if there is one.
    pub fn finished(&self) -> Option<LookedUp> {
        self.results.try_recv().ok()
    }
}

/// `getaddrinfo`, each address once, in the order that it recommends.
fn look_up(host: &str) -> Result<Vec<IpAddr>, String> {
    let found = (host, 0)
        .to_socket_addrs()
        .map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    Ok(addresses)
}
