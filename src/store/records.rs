//! The second port: what happened, in logs that are read in order and forgotten in time.
//!
//! One kind of thing carries all of it. An entry of a Job's history, a line of the audit, what a watcher knows about a
//! Job and where it stopped, a message that waits to be sent: each is a [`Record`] with a name, in a log, at a place.

use super::{Answer, Seconds, StoreError, digest};

/// Records, shared by every process that opens the same store.
///
/// A record whose [`keep_until`](Record::keep_until) has come counts as absent, removed or not. Every method is atomic,
/// and what has answered is durable. A call that failed, or whose future was dropped, may or may not have had its effect.
pub trait Records: Send + Sync + 'static {
    /// Writes `entry` and makes `changes` with it, all or nothing. Where an entry of its name is there already, nothing
    /// happens, and `false` says so: whoever did it before has made those changes.
    ///
    /// Each name may occur once among them, and there may be a hundred at most: DynamoDB's limits.
    fn enter(&self, entry: Record, changes: Vec<Change>, now: Seconds) -> Answer<'_, bool>;

    /// Makes changes, all or nothing. The same limits.
    fn change(&self, changes: Vec<Change>) -> Answer<'_, ()>;

    /// Reads a log, or a part of it, in the order of places, and of names where places are the same.
    ///
    /// What is written meanwhile may be read or not. DynamoDB may miss what was written within the last second or so.
    fn read(&self, query: Query) -> Answer<'_, Page>;

    /// Removes at most `at_most` records that have expired at `now`, and says how many.
    fn forget(&self, now: Seconds, at_most: u32) -> Answer<'_, u64>;
}

/// Something that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Tells it from all others, of any log.
    pub name: Name,
    /// Where it is read.
    pub log: Log,
    /// Where it stands there: milliseconds since 1970 in most logs, below 2^63.
    pub place: u64,
    /// A namespace of Kubernetes, where [`Query::namespace`] is to find it.
    pub namespace: Option<String>,
    /// Somebody, where [`Query::caller`] is to find it.
    pub caller: Option<String>,
    /// What there is to say, at most 16 KB.
    pub body: String,
    /// When it is forgotten; `None` for never.
    pub keep_until: Option<Seconds>,
}

/// Something to do to a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Writes it, over one of its name if there is one.
    Put(Record),
    /// Removes the one of this name, if there is one.
    Remove(Name),
}

impl Change {
    /// Which record it is about.
    #[must_use]
    pub fn name(&self) -> &Name {
        match self {
            Self::Put(record) => &record.name,
            Self::Remove(name) => name,
        }
    }
}

/// A record's name: its kind, and a SHA-256 over what tells it from others of that kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The same for the same parts, in every process.
    #[must_use]
    pub fn of(kind: &str, parts: &[&str]) -> Self {
        Self(format!("{kind}/{}", digest(parts)))
    }

    /// As stores write it: ASCII, at most 80 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A log's name: its kind, and a SHA-256 over what it is about, if it is about something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Log(String);

impl Log {
    /// The only one of its kind.
    #[must_use]
    pub fn the(kind: &str) -> Self {
        Self(kind.to_owned())
    }

    /// The one about these.
    #[must_use]
    pub fn of(kind: &str, parts: &[&str]) -> Self {
        Self(format!("{kind}/{}", digest(parts)))
    }

    /// As stores write it: ASCII, at most 80 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Of this log,
    pub log: Log,
    /// from this place on,
    pub from: u64,
    /// up to this one,
    pub to: u64,
    /// with this namespace alone,
    pub namespace: Option<String>,
    /// and this caller alone,
    pub caller: Option<String>,
    /// the last ones first,
    pub newest_first: bool,
    /// what follows this in that order,
    pub after: Option<Cursor>,
    /// so many at most, 1 to 1000,
    pub limit: u32,
    /// and nothing that has expired by now.
    pub now: Seconds,
}

impl Query {
    /// All of a log, from its beginning.
    #[must_use]
    pub fn all(log: Log, limit: u32, now: Seconds) -> Self {
        let (from, to) = (0, i64::MAX.unsigned_abs());
        Self { log, from, to, namespace: None, caller: None, newest_first: false, after: None, limit, now }
    }
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The records; fewer than asked for, or none, where a store stopped looking.
    pub records: Vec<Record>,
    /// What to go on after; `None` at the end.
    pub next: Option<Cursor>,
}

/// A position in a log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub(in crate::store) place: u64,
    pub(in crate::store) name: String,
}

impl Cursor {
    /// As callers hold it between two requests: `0000000000000000042~name`, sorted as the log is.
    #[must_use]
    pub fn text(&self) -> String {
        position(self.place, &self.name)
    }

    /// The cursor that has this text; callers may send anything.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (place, name) = text.split_once('~')?;
        let is_place = place.len() == PLACE_DIGITS && place.bytes().all(|byte| byte.is_ascii_digit());
        let is_name =
            !name.is_empty() && name.len() <= 80 && name.bytes().all(|byte| byte.is_ascii_graphic());
        let place: u64 = place.parse().ok().filter(|place| is_place && *place <= i64::MAX.unsigned_abs())?;
        is_name.then(|| Self { place, name: name.to_owned() })
    }

    pub(in crate::store) fn of(record: &Record) -> Self {
        Self { place: record.place, name: record.name.0.clone() }
    }
}

/// Digits of the largest place.
const PLACE_DIGITS: usize = 19;

/// A place and a name as text that sorts as they do.
pub(in crate::store) fn position(place: u64, name: &str) -> String {
    format!("{place:0PLACE_DIGITS$}~{name}")
}

impl Page {
    /// Out of one record more than were asked for, if there are so many.
    pub(in crate::store) fn of(mut records: Vec<Record>, limit: u32) -> Self {
        let limit = limit as usize;
        let has_more = records.len() > limit;
        records.truncate(limit);
        let next = records.last().filter(|_| has_more).map(Cursor::of);
        Self { records, next }
    }
}

/// A record out of what a store has written.
pub(in crate::store) fn record(
    (name, log): (String, String),
    place: u64,
    (namespace, caller): (Option<String>, Option<String>),
    body: String,
    keep_until: Option<Seconds>,
) -> Record {
    Record { name: Name(name), log: Log(log), place, namespace, caller, body, keep_until }
}

/// What callers of [`Records`] promise; a store refuses what it could not keep.
///
/// # Errors
/// When there are too many, or two of one name.
pub(in crate::store) fn check(entry: Option<&Record>, changes: &[Change]) -> Result<(), StoreError> {
    let names: std::collections::HashSet<_> =
        entry.map(|entry| &entry.name).into_iter().chain(changes.iter().map(Change::name)).collect();
    let count = changes.len() + usize::from(entry.is_some());
    match count {
        101.. => Err(StoreError::new("more than a hundred records at once")),
        _ if names.len() < count => Err(StoreError::new("two changes of one record at once")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is() {
        let cursor = Cursor { place: 1_800_000_000_123, name: "audit/ab".to_owned() };
        assert_eq!(cursor.text(), "0000001800000000123~audit/ab");
        assert_eq!(Cursor::parse(&cursor.text()), Some(cursor));
        for text in [
            "",
            "~",
            "1~a",
            "0000001800000000123~",
            "000000180000000012x~a",
            "9999999999999999999~a",
            "0000001800000000123~a b",
        ] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
