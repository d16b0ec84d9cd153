//! Runs blocking work on threads, as asyncio's `run_in_executor` does. mio's `Waker` is used where
//! asyncio uses `call_soon_threadsafe`.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mio::Waker;

/// Threads for one kind of work: each job `J` gives a result `R`. A new thread is started when a
/// job is submitted while every thread is busy, up to a maximum number of threads.
pub struct Executor<J, R> {
    name: &'static str,
    work: fn(J) -> R,
    jobs: Sender<J>,
    queue: Arc<Mutex<Receiver<J>>>,
    report: Sender<R>,
    waker: Arc<Waker>,
    /// The number of jobs that were submitted and are not finished.
    busy: Arc<AtomicUsize>,
    threads: usize,
    max_threads: usize,
}

impl<J: Send + 'static, R: Send + 'static> Executor<J, R> {
    /// Creates an executor without threads. Each result is sent to `report`, then `waker` wakes the
    /// loop's `poll`. With `max_threads` = 1, jobs run in the order in which they were submitted.
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

    /// Starts the first thread now. After that, [`Executor::submit`] always succeeds: if no further
    /// thread can be started, an existing thread runs the job.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(&mut self) -> io::Result<()> {
        if self.threads == 0 {
            self.start_thread()?;
            self.threads = 1;
        }
        Ok(())
    }

    /// Puts `job` into the queue. If every thread is busy, also starts another thread, up to the
    /// maximum.
    ///
    /// # Errors
    /// There is no thread, and the system cannot start one. The job is dropped.
    pub fn submit(&mut self, job: J) -> io::Result<()> {
        let busy = self.busy.load(Ordering::SeqCst);
        if busy >= self.threads && self.threads < self.max_threads {
            match self.start_thread() {
                Ok(()) => self.threads += 1,
                // An existing thread will run the job. Without any thread, the job would never run.
                Err(error) if self.threads == 0 => return Err(error),
                Err(_) => {}
            }
        }
        self.busy.fetch_add(1, Ordering::SeqCst);
        // Sending cannot fail, because `self.queue` keeps the receiving end open.
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
                    return; // the loop has ended
                }
            }
        };
        thread::Builder::new()
            .name(self.name.into())
            .spawn(serve)
            .map(drop)
    }
}
