//! What would block the loop is done here: asyncio's `run_in_executor`, with mio's `Waker` for
//! `call_soon_threadsafe`.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mio::Waker;

/// Threads for one kind of work, from jobs `J` to results `R`; each is started when there is nobody
/// free for a job.
pub struct Executor<J, R> {
    name: &'static str,
    work: fn(J) -> R,
    jobs: Sender<J>,
    queue: Arc<Mutex<Receiver<J>>>,
    report: Sender<R>,
    waker: Arc<Waker>,
    /// Jobs handed over and not finished.
    busy: Arc<AtomicUsize>,
    threads: usize,
    max_threads: usize,
}

impl<J: Send + 'static, R: Send + 'static> Executor<J, R> {
    /// An executor without a thread yet. Results go to `report`, and `waker` interrupts the loop's
    /// `poll` then. With one thread at most, jobs are done in order.
    #[must_use]
    pub fn new(
        name: &'static str,
        max_threads: usize,
        waker: Arc<Waker>,
        report: Sender<R>,
        work: fn(J) -> R,
    ) -> Executor<J, R> {
        let (jobs, queue) = channel();
        Executor {
            name,
            work,
            jobs,
            queue: Arc::new(Mutex::new(queue)),
            report,
            waker,
            busy: Arc::default(),
            threads: 0,
            max_threads,
        }
    }

    /// Starts the first thread now, so that none has to be started later.
    ///
    /// # Errors
    /// None can be started.
    pub fn start(&mut self) -> io::Result<()> {
        if self.threads == 0 {
            self.start_thread()?;
            self.threads = 1;
        }
        Ok(())
    }

    /// Has `job` done.
    ///
    /// # Errors
    /// There is no thread, and none can be started; the job is dropped.
    pub fn submit(&mut self, job: J) -> io::Result<()> {
        let busy = self.busy.load(Ordering::SeqCst);
        if busy >= self.threads && self.threads < self.max_threads {
            match self.start_thread() {
                Ok(()) => self.threads += 1,
                // Another thread will take it. Without any, it would never be done.
                Err(error) if self.threads == 0 => return Err(error),
                Err(_) => {}
            }
        }
        self.busy.fetch_add(1, Ordering::SeqCst);
        // The queue's other end is in `self`: sending cannot fail.
        let _ = self.jobs.send(job);
        Ok(())
    }

    fn start_thread(&self) -> io::Result<()> {
        let (queue, report) = (self.queue.clone(), self.report.clone());
        let (waker, busy, work) = (self.waker.clone(), self.busy.clone(), self.work);
        let serve = move || {
            loop {
                let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(job) = job else { return };
                let result = work(job);
                busy.fetch_sub(1, Ordering::SeqCst);
                if report.send(result).is_err() || waker.wake().is_err() {
                    return; // the loop is gone
                }
            }
        };
        thread::Builder::new()
            .name(self.name.into())
            .spawn(serve)
            .map(drop)
    }
}
