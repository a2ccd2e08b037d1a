//! Lines to stdout. In the container no request ever waits for them.
//!
//! Producers append to a buffer; one background thread writes it in batches. When the reader of
//! stdout stalls, the buffer fills up and further lines are dropped and counted: a line says how
//! many, and so does the metric `log_lines_dropped_total`. A function has no such thread ([`Writer::direct`]).
//!
//! Some lines must not be dropped. Whoever is to write one takes [`Room`] for it first, in a part of the buffer that
//! other lines cannot fill; there is none while stdout is not read or fails.

use std::{
    io::{self, ErrorKind, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Bytes kept while stdout is not being read. Some 20,000 lines.
const CAPACITY: usize = 4 * 1024 * 1024;

/// Bytes beside those, for lines that have room taken for them: some 500 at once.
const RESERVED_CAPACITY: usize = 4 * 1024 * 1024;

/// Bytes that one such line may have.
const ROOM: usize = 8 * 1024;

/// How long lines are collected before they are written together.
const BATCH: Duration = Duration::from_millis(5);

/// Bytes that are written at once even so: what is collected shall still be in the processor's cache when the next
/// lines overwrite it. And no more than a pipe holds.
const FULL_BATCH: usize = 64 * 1024;

/// A handle on the buffer; clones share it.
#[derive(Clone)]
pub struct Writer(Arc<Shared>);

struct Shared {
    pending: Mutex<Pending>,
    written_by: Thread,
    sink: Mutex<Sink>,
    dropped_total: AtomicU64,
}

/// Who writes.
enum Thread {
    /// One of its own, which waits for this.
    Own(Condvar),
    /// Whoever has a line.
    Caller,
}

#[derive(Default)]
struct Pending {
    lines: Vec<u8>,
    dropped: u64,
    /// Bytes of `lines` that had room taken for them.
    kept: usize,
    /// Bytes that room is taken for at present.
    reserved: usize,
    /// Whether the last batch could not be written whole.
    is_failing: bool,
    /// Whether to try to write even though nothing is queued but the number of lost lines.
    is_probing: bool,
}

struct Sink {
    out: Box<dyn Write + Send>,
    /// The buffer of the batch before, kept for the next: two buffers take turns.
    batch: Vec<u8>,
    /// Whether the last write broke off inside a line.
    is_torn: bool,
}

impl Sink {
    /// Writes the batch and returns how many of its lines were lost. A sink that fails must not stop
    /// the service: the lines are lost, the requests are not.
    fn write_batch(&mut self) -> u64 {
        if self.is_torn && !self.batch.is_empty() {
            self.batch.insert(0, b'\n');
        }
        let mut written = 0;
        while written < self.batch.len() {
            match self.out.write(&self.batch[written..]) {
                Ok(0) => break,
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Somebody made the pipe non-blocking: wait as a blocking one would.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(BATCH),
                Err(_) => break,
            }
        }
        let _ = self.out.flush();
        if written > 0 {
            self.is_torn = self.batch[written - 1] != b'\n';
        }
        let lost = self.batch[written..].iter().filter(|byte| **byte == b'\n').count();
        self.batch.clear();
        lost as u64
    }
}

impl Writer {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let writer = Self::new(Thread::Own(Condvar::new()), out);
        let background = writer.clone();
        let write = move || {
            if let Thread::Own(filled) = &background.0.written_by {
                background.write_forever(filled);
            }
        };
        thread::Builder::new().name("log-writer".to_owned()).spawn(write)?;
        Ok(writer)
    }

    /// Without a thread: a line is written to `out` before [`Writer::push`] returns. For a process that serves one
    /// request at a time and may be frozen or ended after any of them: a thread would make its start longer, and the
    /// lines later.
    pub fn direct(out: impl Write + Send + 'static) -> Self {
        Self::new(Thread::Caller, out)
    }

    fn new(written_by: Thread, out: impl Write + Send + 'static) -> Self {
        let sink = Sink { out: Box::new(out), batch: Vec::new(), is_torn: false };
        Self(Arc::new(Shared {
            pending: Mutex::default(),
            written_by,
            sink: Mutex::new(sink),
            dropped_total: AtomicU64::new(0),
        }))
    }

    /// Queues one line, its newline included. Never blocks on the sink, where that has a thread.
    pub fn push(&self, line: &[u8]) {
        let mut pending = lock(&self.0.pending);
        if pending.lines.len() - pending.kept + line.len() > CAPACITY {
            pending.dropped += 1;
            self.0.dropped_total.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.queue(pending, line);
    }

    fn queue(&self, mut pending: MutexGuard<'_, Pending>, line: &[u8]) {
        let before = pending.lines.len();
        pending.lines.extend_from_slice(line);
        let is_due = before == 0 || (before < FULL_BATCH && pending.lines.len() >= FULL_BATCH);
        drop(pending);
        match &self.0.written_by {
            Thread::Own(filled) if is_due => filled.notify_one(),
            Thread::Own(_) => {}
            Thread::Caller => self.flush(),
        }
    }

    /// Takes room for one line; `None` while the sink does not take lines.
    #[must_use]
    pub fn reserve(&self) -> Option<Room> {
        let mut pending = lock(&self.0.pending);
        if pending.is_failing {
            // The next line may be written, and only a try can tell.
            pending.is_probing = true;
            drop(pending);
            match &self.0.written_by {
                Thread::Own(filled) => {
                    filled.notify_one();
                    return None;
                }
                Thread::Caller => self.flush(),
            }
            pending = lock(&self.0.pending);
            if pending.is_failing {
                return None;
            }
        }
        if pending.kept + pending.reserved + ROOM > RESERVED_CAPACITY {
            return None;
        }
        pending.reserved += ROOM;
        Some(Room(self.clone()))
    }

    /// [`Writer::reserve`] for a line that is lost without room, and counted.
    #[must_use]
    pub fn reserve_or_count(&self) -> Option<Room> {
        let room = self.reserve();
        if room.is_none() {
            lock(&self.0.pending).dropped += 1;
            self.0.dropped_total.fetch_add(1, Ordering::Relaxed);
        }
        room
    }

    /// Queues one line that [`Room`] was taken for.
    pub fn push_reserved(&self, line: &[u8]) {
        let mut pending = lock(&self.0.pending);
        pending.kept += line.len();
        self.queue(pending, line);
    }

    /// Writes all that is queued, in the caller's thread. Blocks while the sink does.
    pub fn flush(&self) {
        self.drain(&mut lock(&self.0.sink));
    }

    /// [`Writer::flush`], unless somebody is writing already: for a panic, which must not wait.
    pub fn flush_unless_busy(&self) {
        if let Ok(mut sink) = self.0.sink.try_lock() {
            self.drain(&mut sink);
        }
    }

    fn drain(&self, sink: &mut Sink) {
        let dropped = {
            let mut pending = lock(&self.0.pending);
            std::mem::swap(&mut pending.lines, &mut sink.batch);
            pending.kept = 0;
            pending.is_probing = false;
            std::mem::take(&mut pending.dropped)
        };
        if dropped > 0 {
            sink.batch.extend_from_slice(dropped_line(dropped).as_bytes());
        }
        let is_empty = sink.batch.is_empty();
        let mut lost = sink.write_batch();
        let mut pending = lock(&self.0.pending);
        pending.is_failing = if is_empty { pending.is_failing } else { lost > 0 };
        if lost > 0 && dropped > 0 {
            // The last line was lost too: the one that told of them, which is nobody's.
            lost -= 1;
            pending.dropped += dropped;
        }
        pending.dropped += lost;
        self.0.dropped_total.fetch_add(lost, Ordering::Relaxed);
    }

    /// [`Writer::flush`] for async code, given up after `timeout`: a stdout that nobody reads
    /// must not hold up the end of the process.
    pub async fn flush_within(&self, timeout: Duration) {
        let writer = self.clone();
        let _ = tokio::time::timeout(timeout, tokio::task::spawn_blocking(move || writer.flush())).await;
    }

    /// Lines dropped since the start.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.0.dropped_total.load(Ordering::Relaxed)
    }

    fn write_forever(&self, filled: &Condvar) {
        loop {
            let mut pending = lock(&self.0.pending);
            while pending.lines.is_empty() && !pending.is_probing {
                pending = filled.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
            let is_small = |pending: &mut Pending| pending.lines.len() < FULL_BATCH;
            drop(filled.wait_timeout_while(pending, BATCH, is_small));
            self.flush();
        }
    }
}

/// Room for one line, until it is dropped.
pub struct Room(Writer);

impl Drop for Room {
    fn drop(&mut self) {
        lock(&self.0.0.pending).reserved -= ROOM;
    }
}

fn dropped_line(dropped: u64) -> String {
    let timestamp = humantime::format_rfc3339_micros(std::time::SystemTime::now());
    format!(
        r#"{{"event":"Dropped log lines: stdout is not being read, or failing","dropped":{dropped},"level":"warning","timestamp":"{timestamp}"}}
"#
    )
}

/// Nothing panics while one of these locks is held; should it ever, the data is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that takes a batch only when told to.
    struct Stalled {
        permits: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.permits.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            lock(&self.written).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_reach_the_sink_without_a_flush() {
        let (sender, lines) = mpsc::channel::<Vec<u8>>();
        struct Channel(mpsc::Sender<Vec<u8>>);
        impl Write for Channel {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let writer = Writer::start(Channel(sender)).unwrap();
        writer.push(b"one\n");
        assert_eq!(lines.recv_timeout(Duration::from_secs(60)).unwrap(), b"one\n");
    }

    #[test]
    fn without_a_thread_a_line_is_written_at_once_and_one_that_was_lost_is_told_with_the_next() {
        /// Refuses three times, after the first line.
        struct Flaky(u32, Arc<Mutex<Vec<u8>>>);
        impl Write for Flaky {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                if (2..5).contains(&self.0) {
                    return Err(ErrorKind::StorageFull.into());
                }
                lock(&self.1).extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = Writer::direct(Flaky(0, written.clone()));
        let text = || String::from_utf8(lock(&written).clone()).unwrap();
        writer.push(b"one\n");
        assert_eq!(text(), "one\n");
        writer.push(b"two\n");
        writer.push(b"three\n");
        assert!(writer.reserve().is_none(), "it was tried, and refused again");
        assert_eq!((text().as_str(), writer.dropped_total()), ("one\n", 2));
        assert!(writer.reserve().is_some(), "it was tried, and has told of them");
        writer.push(b"four\n");
        assert!(text().contains("\"dropped\":2,") && text().ends_with("four\n"), "{}", text());
        assert_eq!(writer.dropped_total(), 2);
    }

    #[test]
    fn a_stalled_reader_costs_lines_never_time_and_the_count_is_told() {
        let (permit, permits) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = Writer::start(Stalled { permits, written: written.clone() }).unwrap();
        let line = vec![b'x'; 64 * 1024];
        // One batch may already be with the sink, another fills the buffer; the rest is dropped.
        let pushed = 3 * CAPACITY / line.len();
        for _ in 0..pushed {
            writer.push(&line);
        }
        let dropped = writer.dropped_total();
        assert!(dropped > 0);
        (0..16).for_each(|_| permit.send(()).unwrap());
        writer.flush();
        let written = lock(&written);
        let lines = written.iter().filter(|byte| **byte == b'x').count() / line.len();
        assert_eq!(lines as u64 + dropped, pushed as u64);
        let text = String::from_utf8_lossy(&written);
        assert!(text.contains(&format!("\"dropped\":{dropped},")), "the count is in the log");
    }

    #[test]
    fn lines_that_a_sink_refuses_are_counted_and_a_torn_one_is_ended() {
        /// Takes a few bytes, then fails for a while, then takes all.
        struct Full {
            calls: u32,
            written: Arc<Mutex<Vec<u8>>>,
        }
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.calls += 1;
                let length = match self.calls {
                    1 => 3,
                    2 => return Err(ErrorKind::StorageFull.into()),
                    3 => return Err(ErrorKind::WouldBlock.into()),
                    _ => bytes.len(),
                };
                lock(&self.written).extend_from_slice(&bytes[..length]);
                Ok(length)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = Arc::new(Mutex::new(Vec::new()));
        let mut sink = Sink {
            out: Box::new(Full { calls: 0, written: written.clone() }),
            batch: b"first\nsecond\n".to_vec(),
            is_torn: false,
        };
        assert_eq!(sink.write_batch(), 2);
        sink.batch.extend_from_slice(b"third\n");
        assert_eq!(sink.write_batch(), 0);
        assert_eq!(lock(&written).as_slice(), b"fir\nthird\n");
    }

    #[test]
    fn other_lines_never_fill_the_room_of_reserved_ones() {
        let (permit, permits) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = Writer::start(Stalled { permits, written: written.clone() }).unwrap();
        let (line, reserved) = (vec![b'x'; 64 * 1024], vec![b'r'; ROOM]);
        let flood = || (0..3 * CAPACITY / line.len()).for_each(|_| writer.push(&line));
        flood();
        let held: Vec<_> = std::iter::from_fn(|| writer.reserve()).collect();
        assert_eq!(held.len(), RESERVED_CAPACITY / ROOM);
        flood();
        held.iter().for_each(|_| writer.push_reserved(&reserved));
        let taken = held.len();
        drop(held);
        (0..16).for_each(|_| permit.send(()).unwrap());
        writer.flush();
        let kept = lock(&written).iter().filter(|byte| **byte == b'r').count() / ROOM;
        assert_eq!(kept, taken, "none is lost");
        assert!(writer.reserve().is_some(), "and there is room again");
    }

    #[test]
    fn there_is_no_room_while_the_sink_fails_and_there_is_again_when_it_is_back() {
        #[derive(Clone, Default)]
        struct Faulty(Arc<(AtomicU64, Mutex<Vec<u8>>)>);
        impl Write for Faulty {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if self.0.0.load(Ordering::Relaxed) > 0 {
                    return Err(ErrorKind::StorageFull.into());
                }
                lock(&self.0.1).extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Faulty::default();
        let writer = Writer::start(sink.clone()).unwrap();
        sink.0.0.store(1, Ordering::Relaxed);
        writer.push(b"lost\n");
        writer.flush();
        assert!(writer.reserve().is_none() && writer.reserve().is_none());
        sink.0.0.store(0, Ordering::Relaxed);
        // Asking is what makes it try: no other line comes.
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while writer.reserve().is_none() {
            assert!(std::time::Instant::now() < deadline, "it tries again");
            thread::sleep(BATCH);
        }
        assert!(String::from_utf8_lossy(&lock(&sink.0.1)).contains("\"event\":\"Dropped log lines"));
    }

    #[test]
    fn a_closed_sink_is_survived() {
        let (permit, permits) = mpsc::channel();
        drop(permit);
        let writer = Writer::start(Stalled { permits, written: Arc::default() }).unwrap();
        writer.push(b"lost\n");
        writer.flush();
        writer.push(b"lost too\n");
        writer.flush();
    }
}
