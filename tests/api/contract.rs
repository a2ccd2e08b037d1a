//! The contract of `Store`, held against every adapter on a real database: examples, then a property
//! test against a model of a few lines.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use math_service::store::{Database as Adapter, SequenceId, Step, Store};
use proptest::{
    prelude::*,
    test_runner::{Config as Cases, TestCaseError, TestRunner},
};

use crate::databases::{Database, KINDS, Kind, unique};

/// Some moment; stores are told the time.
const NOW: u64 = 1_800_000_000;

fn sequence() -> SequenceId {
    SequenceId::of_session(&unique())
}

fn step(sequence: &SequenceId) -> Step {
    Step {
        sequence: sequence.clone(),
        retry: None,
        max_index: 100,
        now: NOW,
        keep_until: Some(NOW + 100),
        retry_until: NOW + 50,
    }
}

fn named(sequence: &SequenceId, name: &str) -> Step {
    Step { retry: Some(sequence.retry(name)), ..step(sequence) }
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    contract(Kind::Sqlite).await;
}

#[tokio::test]
async fn postgres_keeps_the_contract() {
    contract(Kind::Postgres).await;
}

#[tokio::test]
async fn dynamodb_keeps_the_contract() {
    contract(Kind::Dynamodb).await;
}

/// `one` and `other` are two processes with one database between them.
async fn contract(kind: Kind) {
    let Some(database) = Database::new(kind).await else { return };
    let (one, other) = (database.open(), database.open());
    indices_follow_each_other_from_zero(&*one, &*other).await;
    the_last_index_is_the_end(&*one).await;
    a_reset_sequence_has_not_begun(&*one, &*other).await;
    a_retry_gets_the_first_answer(&*one, &*other).await;
    an_expired_sequence_has_not_begun(&*one, &*other).await;
    an_expired_retry_is_forgotten(&*one).await;
    what_has_expired_is_removed_and_nothing_else(&*one, kind).await;
    calls_at_once_get_different_indices(&one, &other).await;
    retries_at_once_get_the_same_index(&one, &other).await;
    calls_given_up_do_no_harm(&one).await;
}

async fn indices_follow_each_other_from_zero(one: &dyn Store, other: &dyn Store) {
    let (a, b) = (sequence(), sequence());
    assert_eq!(one.current(a.clone(), NOW).await.unwrap(), None, "not begun");
    for expected in 0..5 {
        let store = if expected % 2 == 0 { one } else { other };
        assert_eq!(store.next(step(&a)).await.unwrap(), Some(expected));
        assert_eq!(one.current(a.clone(), NOW).await.unwrap(), Some(expected));
        assert_eq!(other.current(a.clone(), NOW).await.unwrap(), Some(expected));
    }
    assert_eq!(other.next(step(&b)).await.unwrap(), Some(0), "another sequence is another");
    let subject = SequenceId::of_subject("https://issuer.example", &unique());
    let endless = Step { keep_until: None, ..step(&subject) };
    assert_eq!(one.next(endless.clone()).await.unwrap(), Some(0));
    assert_eq!(other.next(endless).await.unwrap(), Some(1));
}

async fn the_last_index_is_the_end(store: &dyn Store) {
    let a = sequence();
    let only_two = Step { max_index: 1, ..step(&a) };
    for expected in [Some(0), Some(1), None, None] {
        assert_eq!(store.next(only_two.clone()).await.unwrap(), expected);
    }
    assert_eq!(store.current(a.clone(), NOW).await.unwrap(), Some(1), "nothing has changed");
    let late = Step { max_index: 1, ..named(&a, "late") };
    assert_eq!(store.next(late.clone()).await.unwrap(), None);
    assert_eq!(store.next(Step { max_index: 9, ..late }).await.unwrap(), Some(2), "no answer was remembered");
    assert_eq!(store.next(Step { max_index: 0, ..step(&sequence()) }).await.unwrap(), Some(0));
}

async fn a_reset_sequence_has_not_begun(one: &dyn Store, other: &dyn Store) {
    let a = sequence();
    one.reset(a.clone()).await.unwrap();
    assert_eq!(one.next(named(&a, "first")).await.unwrap(), Some(0));
    assert_eq!(one.next(step(&a)).await.unwrap(), Some(1));
    other.reset(a.clone()).await.unwrap();
    assert_eq!(one.current(a.clone(), NOW).await.unwrap(), None);
    assert_eq!(other.next(step(&a)).await.unwrap(), Some(0));
    assert_eq!(other.next(step(&a)).await.unwrap(), Some(1));
    assert_eq!(one.next(named(&a, "first")).await.unwrap(), Some(0), "a retry of an old step is that step");
    assert_eq!(one.current(a, NOW).await.unwrap(), Some(1));
}

async fn a_retry_gets_the_first_answer(one: &dyn Store, other: &dyn Store) {
    let (a, b) = (sequence(), sequence());
    assert_eq!(one.next(step(&a)).await.unwrap(), Some(0));
    assert_eq!(one.next(named(&a, "x")).await.unwrap(), Some(1));
    assert_eq!(one.next(step(&a)).await.unwrap(), Some(2));
    assert_eq!(other.next(named(&a, "x")).await.unwrap(), Some(1));
    assert_eq!(other.next(named(&a, "y")).await.unwrap(), Some(3));
    assert_eq!(one.next(named(&a, "y")).await.unwrap(), Some(3));
    assert_eq!(one.next(named(&b, "x")).await.unwrap(), Some(0), "the same name in another sequence");
    let at_the_end = Step { max_index: 0, ..named(&a, "y") };
    assert_eq!(one.next(at_the_end).await.unwrap(), Some(3), "it was given before");
    let subject = SequenceId::of_subject("https://issuer.example", &unique());
    let endless = Step { keep_until: None, ..named(&subject, "x") };
    assert_eq!(one.next(endless.clone()).await.unwrap(), Some(0));
    assert_eq!(other.next(Step { keep_until: None, ..named(&subject, "y") }).await.unwrap(), Some(1));
    assert_eq!(other.next(endless).await.unwrap(), Some(0));
}

async fn an_expired_sequence_has_not_begun(one: &dyn Store, other: &dyn Store) {
    for first in [step as fn(&SequenceId) -> Step, |sequence| named(sequence, "after")] {
        let a = sequence();
        for expected in 0..3 {
            assert_eq!(one.next(step(&a)).await.unwrap(), Some(expected));
        }
        assert_eq!(one.current(a.clone(), NOW + 99).await.unwrap(), Some(2));
        assert_eq!(one.current(a.clone(), NOW + 100).await.unwrap(), None);
        let later = Step { now: NOW + 100, keep_until: Some(NOW + 200), retry_until: NOW + 150, ..first(&a) };
        assert_eq!(other.next(later).await.unwrap(), Some(0));
        assert_eq!(one.current(a.clone(), NOW + 199).await.unwrap(), Some(0));
        let longer = Step { now: NOW + 199, keep_until: Some(NOW + 300), ..step(&a) };
        assert_eq!(one.next(longer).await.unwrap(), Some(1), "a step keeps it longer");
        assert_eq!(one.current(a.clone(), NOW + 299).await.unwrap(), Some(1));
    }
    let subject = SequenceId::of_subject("https://issuer.example", &unique());
    one.next(Step { keep_until: None, ..step(&subject) }).await.unwrap();
    assert_eq!(one.current(subject, NOW + 1_000_000_000).await.unwrap(), Some(0), "kept for good");
}

async fn an_expired_retry_is_forgotten(store: &dyn Store) {
    let a = sequence();
    assert_eq!(store.next(named(&a, "x")).await.unwrap(), Some(0));
    assert_eq!(store.next(Step { now: NOW + 49, ..named(&a, "x") }).await.unwrap(), Some(0));
    let later = Step { now: NOW + 50, retry_until: NOW + 99, ..named(&a, "x") };
    assert_eq!(store.next(later.clone()).await.unwrap(), Some(1));
    assert_eq!(store.next(Step { now: NOW + 98, ..later }).await.unwrap(), Some(1), "remembered anew");
}

async fn what_has_expired_is_removed_and_nothing_else(store: &dyn Store, kind: Kind) {
    // Of what other tests have left, nothing has expired that long ago.
    let long_ago = NOW - 1_000_000;
    let (old, new) = (sequence(), sequence());
    let of_old = Step {
        now: long_ago,
        keep_until: Some(long_ago + 10),
        retry_until: long_ago + 10,
        ..named(&old, "x")
    };
    store.next(of_old).await.unwrap();
    store.next(named(&new, "x")).await.unwrap();
    assert_eq!(store.remove_expired(long_ago + 9, 1000).await.unwrap(), 0);
    let removed = store.remove_expired(long_ago + 10, 1000).await.unwrap();
    assert_eq!(removed, if kind == Kind::Dynamodb { 0 } else { 2 }, "DynamoDB does it by itself");
    assert_eq!(store.current(new.clone(), NOW).await.unwrap(), Some(0));
    assert_eq!(store.next(named(&new, "x")).await.unwrap(), Some(0));
    if kind != Kind::Dynamodb {
        for _ in 0..5 {
            let expired = Step { now: long_ago, keep_until: Some(long_ago + 1), ..step(&sequence()) };
            store.next(expired).await.unwrap();
        }
        assert_eq!(store.remove_expired(long_ago + 1, 3).await.unwrap(), 3, "no more than asked for");
        assert_eq!(store.remove_expired(long_ago + 1, 3).await.unwrap(), 2);
    }
}

/// Eight callers, half of them with retries, half of them in another process.
async fn calls_at_once_get_different_indices(one: &Arc<dyn Adapter>, other: &Arc<dyn Adapter>) {
    let a = sequence();
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let (store, a) = (if caller % 2 == 0 { one } else { other }.clone(), a.clone());
            tokio::spawn(async move {
                let mut given = Vec::new();
                for call in 0..10 {
                    let step = if caller < 4 { step(&a) } else { named(&a, &format!("{caller}-{call}")) };
                    given.push(store.next(step).await.unwrap().unwrap());
                }
                given
            })
        })
        .collect();
    let mut all = BTreeSet::new();
    for caller in callers {
        let given = caller.await.unwrap();
        assert!(given.is_sorted(), "each caller counts upwards: {given:?}");
        all.extend(given);
    }
    assert_eq!(all, (0..80).collect());
}

async fn retries_at_once_get_the_same_index(one: &Arc<dyn Adapter>, other: &Arc<dyn Adapter>) {
    let a = sequence();
    for round in 0..5 {
        let tries: Vec<_> = (0..6)
            .map(|attempt| {
                let store = if attempt % 2 == 0 { one } else { other }.clone();
                let step = named(&a, &format!("round {round}"));
                tokio::spawn(async move { store.next(step).await.unwrap() })
            })
            .collect();
        for attempt in tries {
            assert_eq!(attempt.await.unwrap(), Some(round));
        }
    }
}

async fn calls_given_up_do_no_harm(store: &Arc<dyn Adapter>) {
    let a = sequence();
    for polls in 0..40 {
        let mut call = store.next(step(&a));
        for _ in 0..polls {
            if futures_util::poll!(&mut call).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let before = store.next(step(&a)).await.unwrap().unwrap();
    assert!(before <= 40);
    assert_eq!(store.next(step(&a)).await.unwrap(), Some(before + 1));
}

/// One call, with what may vary of it.
#[derive(Debug, Clone)]
enum Op {
    Next { sequence: usize, retry: Option<u8>, max_index: u64, lasts: Option<u64> },
    Current { sequence: usize },
    Reset { sequence: usize },
    RemoveExpired,
    Wait { seconds: u64 },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let next = (0..3usize, proptest::option::of(0..3u8), 0..6u64, proptest::option::weighted(0.9, 1..40u64))
        .prop_map(|(sequence, retry, max_index, lasts)| Op::Next { sequence, retry, max_index, lasts });
    let op = prop_oneof![
        6 => next,
        2 => (0..3usize).prop_map(|sequence| Op::Current { sequence }),
        1 => (0..3usize).prop_map(|sequence| Op::Reset { sequence }),
        1 => Just(Op::RemoveExpired),
        2 => (1..30u64).prop_map(|seconds| Op::Wait { seconds }),
    ];
    proptest::collection::vec(op, 1..40)
}

/// The contract in memory.
#[derive(Default)]
struct Model {
    /// Where each sequence stands, and until when.
    sequences: HashMap<usize, (u64, u64)>,
    retries: HashMap<(usize, u8), (u64, u64)>,
    now: u64,
}

/// How long a retry is remembered.
const REMEMBERED: u64 = 20;

impl Model {
    fn current(&self, sequence: usize) -> Option<u64> {
        self.sequences.get(&sequence).filter(|(_, until)| *until > self.now).map(|(index, _)| *index)
    }

    fn next(
        &mut self,
        sequence: usize,
        retry: Option<u8>,
        max_index: u64,
        lasts: Option<u64>,
    ) -> Option<u64> {
        let remembered = retry.and_then(|retry| self.retries.get(&(sequence, retry)));
        if let Some((index, _)) = remembered.filter(|(_, until)| *until > self.now) {
            return Some(*index);
        }
        let index = self.current(sequence).map_or(0, |index| index + 1);
        if index > max_index {
            return None;
        }
        self.sequences.insert(sequence, (index, lasts.map_or(u64::MAX, |lasts| self.now + lasts)));
        retry.map(|retry| self.retries.insert((sequence, retry), (index, self.now + REMEMBERED)));
        Some(index)
    }
}

async fn follows_the_model(store: &dyn Store, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut model = Model { now: NOW, ..Model::default() };
    let ids: Vec<_> = (0..3).map(|_| sequence()).collect();
    for op in ops {
        match *op {
            Op::Next { sequence, retry, max_index, lasts } => {
                let step = Step {
                    retry: retry.map(|retry| ids[sequence].retry(&retry.to_string())),
                    sequence: ids[sequence].clone(),
                    max_index,
                    now: model.now,
                    keep_until: lasts.map(|lasts| model.now + lasts),
                    retry_until: model.now + REMEMBERED,
                };
                let given = store.next(step).await.unwrap();
                prop_assert_eq!(given, model.next(sequence, retry, max_index, lasts), "{:?}", op);
            }
            Op::Current { sequence } => {
                let given = store.current(ids[sequence].clone(), model.now).await.unwrap();
                prop_assert_eq!(given, model.current(sequence), "{:?}", op);
            }
            Op::Reset { sequence } => {
                store.reset(ids[sequence].clone()).await.unwrap();
                model.sequences.remove(&sequence);
            }
            Op::RemoveExpired => drop(store.remove_expired(model.now, 1000).await.unwrap()),
            Op::Wait { seconds } => model.now += seconds,
        }
    }
    Ok(())
}

#[test]
fn every_store_follows_the_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for kind in KINDS {
        let Some(database) = runtime.block_on(Database::new(kind)) else { continue };
        let store = runtime.block_on(async { database.open() });
        // A file beside the sources, for cases that failed, would be written into the checkout.
        let cases = if kind == Kind::Dynamodb { 24 } else { 96 };
        let mut runner = TestRunner::new(Cases { cases, failure_persistence: None, ..Cases::default() });
        let followed = runner.run(&ops(), |ops| runtime.block_on(follows_the_model(&*store, &ops)));
        assert!(followed.is_ok(), "{kind:?}: {}", followed.unwrap_err());
    }
}
