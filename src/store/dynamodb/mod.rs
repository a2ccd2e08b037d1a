//! A DynamoDB table: shared by Lambda functions without a VPC and by pods, with nothing to run.
//!
//! One item a sequence, one a remembered call, one a record; `expires_at` is the table's TTL attribute. The
//! requests are our own: AWS's SDK for it adds 2 MB to the function's bundle, takes minutes to build, and repeats
//! requests whose outcome is unknown, which would skip an index.

mod client;
mod records;

use std::time::Duration;

use serde_json::{Value, json};

use self::client::{Client, Failure};
use super::{Answer, Seconds, SequenceId, Step, Store, StoreError, location::Table};
use crate::aws::credentials::Chain;

/// Longest pause before a request that met another's is sent again; the pause is random.
const PAUSE: Duration = Duration::from_millis(20);

/// A DynamoDB table whose partition key is the string `id`.
pub struct Dynamodb {
    client: Client,
    table: String,
}

impl Dynamodb {
    /// The table, in `region` unless it names another, by the process's own credentials; nothing is sent yet.
    ///
    /// # Errors
    /// When no region is known, or the endpoint is no URL.
    pub fn open(table: &Table, region: Option<&str>) -> Result<Self, StoreError> {
        Ok(Self { client: Client::new(table, region, None)?, table: table.name.clone() })
    }

    /// The same with somebody else's credentials, for tests.
    ///
    /// # Errors
    /// As [`Dynamodb::open`].
    pub fn with(table: &Table, region: Option<&str>, credentials: Chain) -> Result<Self, StoreError> {
        Ok(Self { client: Client::new(table, region, Some(credentials))?, table: table.name.clone() })
    }

    /// One conditional update. Only a sequence that has expired takes a second.
    async fn step(&self, step: &Step) -> Result<Option<u64>, StoreError> {
        loop {
            let update = json!({
                "TableName": self.table,
                "Key": key(step.sequence.as_str()),
                "UpdateExpression": format!("SET last_index = if_not_exists(last_index, :before) + :one{}", expiry(step)),
                "ConditionExpression": "(attribute_not_exists(expires_at) OR expires_at > :now) \
                    AND (attribute_not_exists(last_index) OR last_index < :max)",
                "ExpressionAttributeValues": values(step, &[
                    (":before", -1), (":one", 1), (":now", signed(step.now)), (":max", signed(step.max_index)),
                ]),
                "ReturnValues": "UPDATED_NEW",
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            });
            let refused = match self.client.call("UpdateItem", &update).await {
                Ok(answer) => return number(&answer["Attributes"], "last_index").map(Some),
                Err(Failure::Refused { kind, body }) if kind == CONDITION => body,
                Err(failure) => {
                    again(failure).await?;
                    continue;
                }
            };
            let old = &refused["Item"];
            if !has_expired(old, step.now) {
                return Ok(None);
            }
            if self.begin_again(step, old).await? {
                return Ok(Some(0));
            }
        }
    }

    /// An expired sequence begins again, unless another call was faster.
    async fn begin_again(&self, step: &Step, old: &Value) -> Result<bool, StoreError> {
        let update = json!({
            "TableName": self.table,
            "Key": key(step.sequence.as_str()),
            "UpdateExpression": format!("SET last_index = :first{}", expiry(step)),
            "ConditionExpression": "expires_at = :read",
            "ExpressionAttributeValues": values(step, &[
                (":first", 0), (":read", signed(number(old, "expires_at")?)),
            ]),
        });
        match self.client.call("UpdateItem", &update).await {
            Ok(_) => Ok(true),
            Err(Failure::Refused { kind, .. }) if kind == CONDITION => Ok(false),
            Err(failure) => again(failure).await.map(|()| false),
        }
    }

    /// Reads where the sequence stands and whether the call was made before, then writes both in one
    /// transaction, on the condition that neither has changed; if one has, reads again.
    async fn step_once(&self, step: &Step, retry: &str) -> Result<Option<u64>, StoreError> {
        loop {
            let Some((sequence, remembered)) = self.read_both(step.sequence.as_str(), retry).await? else {
                continue;
            };
            if !remembered.is_null() && !has_expired(&remembered, step.now) {
                return number(&remembered, "last_index").map(Some);
            }
            let begun = !sequence.is_null() && !has_expired(&sequence, step.now);
            let index = if begun { number(&sequence, "last_index")? + 1 } else { 0 };
            if index > step.max_index {
                return Ok(None);
            }
            let write = json!({"TransactItems": [
                {"Put": {
                    "TableName": self.table,
                    "Item": {
                        "id": {"S": retry},
                        "last_index": {"N": index.to_string()},
                        "expires_at": {"N": step.retry_until.to_string()},
                    },
                    "ConditionExpression": "attribute_not_exists(id) OR expires_at <= :now",
                    "ExpressionAttributeValues": {":now": {"N": step.now.to_string()}},
                }},
                {"Update": self.update_from(step, &sequence, index)},
            ]});
            match self.client.call("TransactWriteItems", &write).await {
                Ok(_) => return Ok(Some(index)),
                Err(Failure::Refused { kind, .. }) if kind == "TransactionCanceledException" => pause().await,
                Err(failure) => again(failure).await?,
            }
        }
    }

    /// The sequence's part of the transaction: from exactly what was read to `index`. What was read
    /// includes the expiry, because a sequence that began again may stand where it stood before.
    fn update_from(&self, step: &Step, read: &Value, index: u64) -> Value {
        let mut known = vec![(":index", signed(index))];
        let mut unchanged = vec!["attribute_not_exists(id)"];
        let [last, until] = ["last_index", "expires_at"].map(|name| number(read, name).ok().map(signed));
        if let Some(last) = last {
            known.push((":last", last));
            unchanged = vec!["last_index = :last"];
            unchanged.push(if until.is_some() {
                "expires_at = :until"
            } else {
                "attribute_not_exists(expires_at)"
            });
            known.extend(until.map(|until| (":until", until)));
        }
        json!({
            "TableName": self.table,
            "Key": key(step.sequence.as_str()),
            "UpdateExpression": format!("SET last_index = :index{}", expiry(step)),
            "ConditionExpression": unchanged.join(" AND "),
            "ExpressionAttributeValues": values(step, &known),
        })
    }

    /// Two items, null where there is none; `None` when DynamoDB asks to be asked again.
    async fn read_both(&self, one: &str, other: &str) -> Result<Option<(Value, Value)>, StoreError> {
        let read = json!({"RequestItems": {&self.table: {
            "Keys": [key(one), key(other)],
            "ConsistentRead": true,
        }}});
        let mut answer = match self.client.call("BatchGetItem", &read).await {
            Ok(answer) => answer,
            Err(failure) => return again(failure).await.map(|()| None),
        };
        if answer["UnprocessedKeys"].as_object().is_some_and(|left| !left.is_empty()) {
            pause().await;
            return Ok(None);
        }
        let mut found = [Value::Null, Value::Null];
        for item in answer["Responses"][&self.table].as_array_mut().into_iter().flatten() {
            let place = usize::from(item["id"]["S"] != one);
            found[place] = item.take();
        }
        let [one, other] = found;
        Ok(Some((one, other)))
    }
}

impl Store for Dynamodb {
    fn next(&self, step: Step) -> Answer<'_, Option<u64>> {
        Box::pin(async move {
            match &step.retry {
                None => self.step(&step).await,
                Some(retry) => self.step_once(&step, retry.as_str()).await,
            }
        })
    }

    fn current(&self, sequence: SequenceId, now: Seconds) -> Answer<'_, Option<u64>> {
        Box::pin(async move {
            let read =
                json!({"TableName": self.table, "Key": key(sequence.as_str()), "ConsistentRead": true});
            loop {
                let answer = match self.client.call("GetItem", &read).await {
                    Ok(answer) => answer,
                    Err(failure) => {
                        again(failure).await?;
                        continue;
                    }
                };
                let item = &answer["Item"];
                let has_begun = !item.is_null() && !has_expired(item, now);
                return has_begun.then(|| number(item, "last_index")).transpose();
            }
        })
    }

    fn reset(&self, sequence: SequenceId) -> Answer<'_, ()> {
        Box::pin(async move {
            let delete = json!({"TableName": self.table, "Key": key(sequence.as_str())});
            while let Err(failure) = self.client.call("DeleteItem", &delete).await {
                again(failure).await?;
            }
            Ok(())
        })
    }

    /// DynamoDB does it by itself, within a day or two of `expires_at`.
    fn remove_expired(&self, _: Seconds, _: u32) -> Answer<'_, u64> {
        Box::pin(async { Ok(0) })
    }
}

const CONDITION: &str = "ConditionalCheckFailedException";

/// Refusals after which nothing has happened, and which pass.
const PASSING: [&str; 5] = [
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
];

/// Waits a moment when the same request may be sent again, and fails when it may not.
async fn again(failure: Failure) -> Result<(), StoreError> {
    match &failure {
        Failure::Refused { kind, .. } if PASSING.contains(&kind.as_str()) => {
            pause().await;
            Ok(())
        }
        _ => Err(StoreError::new(failure)),
    }
}

async fn pause() {
    tokio::time::sleep(PAUSE.mul_f64(fastrand::f64())).await;
}

fn key(id: &str) -> Value {
    json!({"id": {"S": id}})
}

/// A sequence that is kept for good has no expiry at all.
fn expiry(step: &Step) -> &'static str {
    if step.keep_until.is_some() { ", expires_at = :keep" } else { " REMOVE expires_at" }
}

/// DynamoDB refuses values that its expressions do not use, so the expiry is among them only at need.
fn values(step: &Step, known: &[(&str, i64)]) -> Value {
    let keep = step.keep_until.map(|until| (":keep", signed(until)));
    known
        .iter()
        .copied()
        .chain(keep)
        .map(|(name, number)| (name.to_owned(), json!({"N": number.to_string()})))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// What TTL removes some time later is gone now.
fn has_expired(item: &Value, now: Seconds) -> bool {
    number(item, "expires_at").is_ok_and(|at| at <= now)
}

fn number(item: &Value, name: &str) -> Result<u64, StoreError> {
    let text = item[name]["N"].as_str();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| StoreError::new(format!("DynamoDB's answer has no number {name}")))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
