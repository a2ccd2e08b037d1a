//! The contract of `Records`, held against every adapter on a real database.

use std::sync::Arc;

use math_service::store::{
    Database as Adapter,
    records::{Change, Cursor, Log, Name, Page, Query, Record},
};

use crate::databases::{Database, Kind, unique};

/// Some moment; stores are told the time.
const NOW: u64 = 1_800_000_000;

fn log() -> Log {
    Log::of("test", &[&unique()])
}

fn record(log: &Log, name: &str, place: u64) -> Record {
    Record {
        name: Name::of("test", &[log.as_str(), name]),
        log: log.clone(),
        place,
        namespace: None,
        caller: None,
        body: format!("{{\"name\":\"{name}\"}}"),
        keep_until: Some(NOW + 100),
    }
}

fn all(log: &Log) -> Query {
    Query::all(log.clone(), 100, NOW)
}

async fn read(store: &dyn Adapter, query: Query) -> Vec<Record> {
    let Page { records, next } = store.read(query).await.unwrap();
    assert_eq!(next, None);
    records
}

#[tokio::test]
async fn sqlite_keeps_records_as_the_contract_says() {
    contract(Kind::Sqlite).await;
}

#[tokio::test]
async fn postgres_keeps_records_as_the_contract_says() {
    contract(Kind::Postgres).await;
}

#[tokio::test]
async fn dynamodb_keeps_records_as_the_contract_says() {
    contract(Kind::Dynamodb).await;
}

/// `one` and `other` are two processes with one database between them.
async fn contract(kind: Kind) {
    let Some(database) = Database::new(kind).await else { return };
    let (one, other) = (database.open(), database.open());
    what_was_entered_is_read_by_all(&*one, &*other).await;
    an_entry_is_made_once_and_its_changes_with_it(&*one, &*other).await;
    changes_are_made_all_or_none(&*one).await;
    what_has_expired_is_absent(&*one).await;
    a_log_is_read_in_order_page_by_page(&*one).await;
    a_filter_finds_all_that_it_is_about(&*one).await;
    what_has_expired_is_forgotten_in_batches(&*one, kind).await;
    of_two_who_enter_the_same_at_once_one_does(&one, &other).await;
}

#[tokio::test]
async fn a_table_without_the_index_takes_entries_and_shows_them_when_it_has_one() {
    let Some(table) = Database::without_index().await else { return };
    let (store, log) = (table.open(), log());
    assert!(store.enter(record(&log, "a", 1), vec![], NOW).await.unwrap());
    assert!(store.read(all(&log)).await.is_err());
    table.add_index().await;
    assert_eq!(read(&*store, all(&log)).await, [record(&log, "a", 1)]);
}

async fn what_was_entered_is_read_by_all(one: &dyn Adapter, other: &dyn Adapter) {
    let log = log();
    assert_eq!(read(one, all(&log)).await, []);
    let full = Record {
        namespace: Some("jobs-a".to_owned()),
        caller: Some("alice \u{1f980}".to_owned()),
        body: "{\"text\":\"a 'quote' \\\" \u{e9}\"}".to_owned(),
        ..record(&log, "a", 7)
    };
    let endless = Record { keep_until: None, place: i64::MAX.unsigned_abs(), ..record(&log, "b", 0) };
    assert!(one.enter(full.clone(), vec![], NOW).await.unwrap());
    assert!(other.enter(endless.clone(), vec![], NOW).await.unwrap());
    for store in [one, other] {
        assert_eq!(read(store, all(&log)).await, [full.clone(), endless.clone()]);
    }
    let much_later = Query { now: NOW + 1_000_000_000, ..all(&log) };
    assert_eq!(read(one, much_later).await, [endless]);
}

async fn an_entry_is_made_once_and_its_changes_with_it(one: &dyn Adapter, other: &dyn Adapter) {
    let (log, state) = (log(), log());
    let first = record(&log, "entry", 1);
    let again = Record { place: 2, body: "another".to_owned(), ..first.clone() };
    let (old, new) = (record(&state, "known", 1), Record { place: 9, ..record(&state, "known", 1) });
    assert!(one.enter(first.clone(), vec![Change::Put(old.clone())], NOW).await.unwrap());
    let changes = vec![Change::Put(new.clone()), Change::Put(record(&state, "more", 3))];
    assert!(!other.enter(again, changes.clone(), NOW).await.unwrap(), "it is there");
    assert_eq!(read(one, all(&log)).await, std::slice::from_ref(&first), "and stays what it was");
    assert_eq!(read(one, all(&state)).await, [old], "nor is anything else changed");
    assert!(other.enter(record(&log, "next", 2), changes, NOW).await.unwrap());
    assert_eq!(read(one, all(&state)).await, [record(&state, "more", 3), new.clone()]);
    let remove = vec![Change::Remove(new.name), Change::Remove(Name::of("test", &["nobody"]))];
    assert!(one.enter(record(&log, "last", 3), remove, NOW).await.unwrap());
    assert_eq!(read(other, all(&state)).await, [record(&state, "more", 3)]);
    let later = Record { keep_until: Some(NOW + 300), ..record(&log, "entry", 5) };
    assert!(!one.enter(later.clone(), vec![], NOW + 99).await.unwrap());
    assert!(one.enter(later.clone(), vec![], NOW + 100).await.unwrap(), "what has expired is not there");
    assert_eq!(read(other, Query { now: NOW + 100, ..all(&log) }).await, [later]);
}

async fn changes_are_made_all_or_none(store: &dyn Adapter) {
    let log = log();
    store.change(vec![]).await.unwrap();
    let many = |count: u64| {
        (0..count).map(|place| Change::Put(record(&log, &place.to_string(), place))).collect::<Vec<_>>()
    };
    store.change(many(100)).await.unwrap();
    assert_eq!(read(store, all(&log)).await.len(), 100);
    let twice = vec![Change::Remove(record(&log, "1", 1).name), Change::Remove(record(&log, "1", 1).name)];
    assert!(store.change(many(101)).await.is_err(), "more than DynamoDB takes");
    assert!(store.change(twice).await.is_err(), "which one is meant?");
    assert!(store.enter(record(&log, "x", 1), many(100), NOW).await.is_err());
    assert_eq!(read(store, all(&log)).await.len(), 100);
}

async fn what_has_expired_is_absent(store: &dyn Adapter) {
    let log = log();
    store.change(vec![Change::Put(record(&log, "a", 1))]).await.unwrap();
    assert_eq!(read(store, Query { now: NOW + 99, ..all(&log) }).await.len(), 1);
    assert_eq!(read(store, Query { now: NOW + 100, ..all(&log) }).await, []);
}

async fn a_log_is_read_in_order_page_by_page(store: &dyn Adapter) {
    let log = log();
    // Four at one place, among others.
    let mut records: Vec<_> = (0..130u64)
        .map(|n| record(&log, &n.to_string(), if (40..44).contains(&n) { 40 } else { n }))
        .collect();
    for some in records.rchunks(65) {
        store.change(some.iter().cloned().map(Change::Put).collect()).await.unwrap();
    }
    records.sort_by(|a, b| (a.place, &a.name).cmp(&(b.place, &b.name)));
    for newest_first in [false, true] {
        for limit in [1, 7, 60, 130, 500] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let query = Query { newest_first, limit, after, ..all(&log) };
                let page = store.read(query).await.unwrap();
                assert!(page.records.len() <= limit as usize);
                found.extend(page.records);
                after = page.next.map(|next| Cursor::parse(&next.text()).unwrap());
                if after.is_none() {
                    break;
                }
            }
            if newest_first {
                found.reverse();
            }
            assert_eq!(found, records, "{limit} {newest_first}");
        }
    }
    let part = Query { from: 40, to: 45, ..all(&log) };
    assert_eq!(read(store, part.clone()).await, records[40..=45]);
    let none = Query { from: 45, to: 44, ..part.clone() };
    assert_eq!(read(store, none).await, []);
    let beyond = Query { after: Cursor::parse("0000000000000000050~x"), ..part };
    assert_eq!(read(store, beyond).await, []);
}

async fn a_filter_finds_all_that_it_is_about(store: &dyn Adapter) {
    let log = log();
    let names = ["jobs-a", "jobs-b", "jobs-c"];
    // The rare one is found among many others.
    let tagged = |n: u64| Record {
        namespace: (!n.is_multiple_of(10)).then(|| names[usize::try_from(n % 2).unwrap()].to_owned()),
        caller: Some(if n == 3 { "bob".to_owned() } else { "alice".to_owned() }),
        ..record(&log, &n.to_string(), n)
    };
    for some in (0..600).map(tagged).collect::<Vec<_>>().chunks(100) {
        store.change(some.iter().cloned().map(Change::Put).collect()).await.unwrap();
    }
    let found = async |namespace: Option<&str>, caller: Option<&str>, newest_first| {
        let (mut places, mut after) = (Vec::new(), None);
        loop {
            let (namespace, caller) = (namespace.map(str::to_owned), caller.map(str::to_owned));
            let query = Query { namespace, caller, newest_first, after, limit: 1000, ..all(&log) };
            let page = store.read(query).await.unwrap();
            places.extend(page.records.iter().map(|record| record.place));
            after = page.next;
            if after.is_none() {
                return places;
            }
        }
    };
    for newest_first in [false, true] {
        assert_eq!(found(None, Some("bob"), newest_first).await, [3]);
        assert_eq!(found(Some("jobs-b"), Some("bob"), newest_first).await, [3]);
        assert_eq!(found(Some("jobs-a"), Some("bob"), newest_first).await, [0; 0]);
        assert_eq!(found(Some("jobs-c"), None, newest_first).await, [0; 0]);
        assert_eq!(found(Some("jobs-a"), None, newest_first).await.len(), 240);
        assert_eq!(found(None, None, newest_first).await.len(), 600);
    }
}

async fn what_has_expired_is_forgotten_in_batches(store: &dyn Adapter, kind: Kind) {
    // Of what other tests have left, nothing has expired that long ago.
    let long_ago = NOW - 1_000_000;
    let log = log();
    let old = |n: u64| Change::Put(Record { keep_until: Some(long_ago), ..record(&log, &n.to_string(), n) });
    store.change((0..5).map(old).collect()).await.unwrap();
    store.change(vec![Change::Put(record(&log, "young", 9))]).await.unwrap();
    assert_eq!(store.forget(long_ago - 1, 100).await.unwrap(), 0);
    let removed = [store.forget(long_ago, 3).await.unwrap(), store.forget(long_ago, 3).await.unwrap()];
    assert_eq!(removed, if kind == Kind::Dynamodb { [0, 0] } else { [3, 2] }, "DynamoDB does it by itself");
    assert_eq!(read(store, all(&log)).await, [record(&log, "young", 9)]);
}

async fn of_two_who_enter_the_same_at_once_one_does(one: &Arc<dyn Adapter>, other: &Arc<dyn Adapter>) {
    let (log, outbox) = (log(), log());
    for round in 0..10u64 {
        let tries: Vec<_> = (0..6)
            .map(|attempt| {
                let store = if attempt % 2 == 0 { one } else { other }.clone();
                let entry = record(&log, &round.to_string(), round);
                let message = Change::Put(record(&outbox, &format!("{round} of {attempt}"), round));
                tokio::spawn(async move { store.enter(entry, vec![message], NOW).await.unwrap() })
            })
            .collect();
        let mut entered = 0;
        for attempt in tries {
            entered += u32::from(attempt.await.unwrap());
        }
        assert_eq!(entered, 1);
    }
    assert_eq!(read(&**one, all(&log)).await.len(), 10);
    assert_eq!(read(&**one, all(&outbox)).await.len(), 10, "what goes with an entry goes with it once");
}
