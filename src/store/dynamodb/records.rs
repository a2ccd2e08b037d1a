//! Records in DynamoDB: items of the same table, which the index `records` has in order.
//!
//! Of all items only records have the attributes `log` and `position`, so a step of a sequence costs what it did before.

use serde_json::{Map, Value, json};

use super::{CONDITION, Dynamodb, again, has_expired, key, number, pause, signed};
use crate::store::{
    Answer, Seconds, StoreError,
    dynamodb::client::Failure,
    records::{self, Change, Cursor, Page, Query, Record, Records, position},
};

/// The global secondary index: partition key `log`, sort key `position`, all attributes.
const INDEX: &str = "records";

/// Records that one request looks at: with the largest of them, an answer stays below DynamoDB's megabyte.
const LOOKED_AT: u32 = 50;

/// Requests for one page. Where a filter passes that little, the page ends there, and its cursor goes on.
const REQUESTS: u32 = 10;

impl Records for Dynamodb {
    fn enter(&self, entry: Record, changes: Vec<Change>, now: Seconds) -> Answer<'_, bool> {
        Box::pin(async move {
            records::check(Some(&entry), &changes)?;
            let mut put = self.put(&entry);
            put["ConditionExpression"] = json!("attribute_not_exists(id) OR expires_at <= :now");
            put["ExpressionAttributeValues"] = json!({":now": {"N": signed(now).to_string()}});
            if changes.is_empty() {
                return self.put_alone(&put).await;
            }
            let mut items = vec![json!({"Put": put})];
            items.extend(changes.iter().map(|change| self.item_of(change)));
            self.transact(items).await
        })
    }

    fn change(&self, changes: Vec<Change>) -> Answer<'_, ()> {
        Box::pin(async move {
            records::check(None, &changes)?;
            let items: Vec<_> = changes.iter().map(|change| self.item_of(change)).collect();
            if items.is_empty() {
                return Ok(());
            }
            self.transact(items).await.map(drop)
        })
    }

    fn read(&self, query: Query) -> Answer<'_, Page> {
        Box::pin(async move { self.page(&query).await })
    }

    /// DynamoDB does it by itself, within a day or two of `expires_at`.
    fn forget(&self, _: Seconds, _: u32) -> Answer<'_, u64> {
        Box::pin(async { Ok(0) })
    }
}

impl Dynamodb {
    fn put(&self, record: &Record) -> Value {
        let text = |value: &str| json!({"S": value});
        let mut item = Map::from_iter([
            ("id".to_owned(), text(record.name.as_str())),
            ("log".to_owned(), text(record.log.as_str())),
            ("position".to_owned(), text(&position(record.place, record.name.as_str()))),
            ("body".to_owned(), text(&record.body)),
        ]);
        let tags = [("namespace", &record.namespace), ("caller", &record.caller)];
        item.extend(
            tags.into_iter().filter_map(|(name, value)| Some((name.to_owned(), text(value.as_deref()?)))),
        );
        item.extend(
            record.keep_until.map(|until| ("expires_at".to_owned(), json!({"N": until.to_string()}))),
        );
        json!({"TableName": self.table, "Item": item})
    }

    fn item_of(&self, change: &Change) -> Value {
        match change {
            Change::Put(record) => json!({"Put": self.put(record)}),
            Change::Remove(name) => json!({"Delete": {"TableName": self.table, "Key": key(name.as_str())}}),
        }
    }

    /// Half the price of a transaction.
    async fn put_alone(&self, put: &Value) -> Result<bool, StoreError> {
        loop {
            match self.client.call("PutItem", put).await {
                Ok(_) => return Ok(true),
                Err(Failure::Refused { kind, .. }) if kind == CONDITION => return Ok(false),
                Err(failure) => again(failure).await?,
            }
        }
    }

    /// `false` when the first item's condition does not hold.
    async fn transact(&self, items: Vec<Value>) -> Result<bool, StoreError> {
        let write = json!({"TransactItems": items});
        loop {
            match self.client.call("TransactWriteItems", &write).await {
                Ok(_) => return Ok(true),
                Err(Failure::Refused { kind, body }) if kind == "TransactionCanceledException" => {
                    if body["CancellationReasons"][0]["Code"] == "ConditionalCheckFailed" {
                        return Ok(false);
                    }
                    let reasons = body["CancellationReasons"].as_array().map_or(&[][..], Vec::as_slice);
                    // Another transaction was at one of the items; whatever else it is, it would come again.
                    let passes = |reason: &Value| {
                        matches!(
                            reason["Code"].as_str(),
                            Some(
                                "None"
                                    | "TransactionConflict"
                                    | "ThrottlingError"
                                    | "ProvisionedThroughputExceeded"
                            )
                        )
                    };
                    if reasons.is_empty() || !reasons.iter().all(passes) {
                        return Err(StoreError::new(Failure::Refused { kind, body }));
                    }
                    pause().await;
                }
                Err(failure) => again(failure).await?,
            }
        }
    }

    async fn page(&self, query: &Query) -> Result<Page, StoreError> {
        let mut found = Vec::new();
        let mut after = query.after.clone();
        for _ in 0..REQUESTS {
            let looked = self.look(query, after.as_ref()).await?;
            for item in &looked.items {
                let record = read(item)?;
                let cursor = Cursor::of(&record);
                // The bounds are inclusive: DynamoDB has no others for a range.
                if Some(&cursor) != after.as_ref() && !has_expired(item, query.now) {
                    found.push(record);
                }
            }
            if found.len() > query.limit as usize || looked.last.is_none() {
                return Ok(Page::of(found, query.limit));
            }
            after = looked.last;
        }
        Ok(Page { records: found, next: after })
    }

    async fn look(&self, query: &Query, after: Option<&Cursor>) -> Result<Looked, StoreError> {
        let Query { log, from, to, namespace, caller, newest_first, .. } = query;
        // Behind `~` there is no character that a name may begin with.
        let (mut low, mut high) = (position(*from, ""), position(*to, "~"));
        match (after.map(Cursor::text), newest_first) {
            (Some(after), false) => low = low.max(after),
            (Some(after), true) => high = high.min(after),
            (None, _) => {}
        }
        if low > high {
            return Ok(Looked { items: Vec::new(), last: None });
        }
        let mut values = json!({":log": {"S": log.as_str()}, ":low": {"S": low}, ":high": {"S": high}});
        let mut conditions = Vec::new();
        let mut names = json!({"#log": "log", "#position": "position"});
        for (name, value) in [("namespace", namespace), ("caller", caller)] {
            if let Some(value) = value {
                values[format!(":{name}")] = json!({"S": value});
                names[format!("#{name}")] = json!(name);
                conditions.push(format!("#{name} = :{name}"));
            }
        }
        let mut request = json!({
            "TableName": self.table,
            "IndexName": INDEX,
            "KeyConditionExpression": "#log = :log AND #position BETWEEN :low AND :high",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
            "ScanIndexForward": !newest_first,
            "Limit": LOOKED_AT,
        });
        if !conditions.is_empty() {
            request["FilterExpression"] = json!(conditions.join(" AND "));
        }
        loop {
            match self.client.call("Query", &request).await {
                Ok(mut answer) => return Looked::of(&mut answer),
                Err(failure) => again(failure).await?,
            }
        }
    }
}

/// What one request has found, and where it stopped.
struct Looked {
    items: Vec<Value>,
    last: Option<Cursor>,
}

impl Looked {
    fn of(answer: &mut Value) -> Result<Self, StoreError> {
        let last = &answer["LastEvaluatedKey"];
        let last = match last.is_null() {
            true => None,
            false => Some(
                Cursor::parse(&text(last, "position")?)
                    .ok_or_else(|| StoreError::new("no position of ours"))?,
            ),
        };
        let items = answer["Items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        Ok(Self { items, last })
    }
}

fn read(item: &Value) -> Result<Record, StoreError> {
    let position = text(item, "position")?;
    let cursor = Cursor::parse(&position).ok_or_else(|| StoreError::new("no position of ours"))?;
    let optional = |name: &str| item[name]["S"].as_str().map(str::to_owned);
    let names = (text(item, "id")?, text(item, "log")?);
    let tags = (optional("namespace"), optional("caller"));
    Ok(records::record(names, cursor.place, tags, text(item, "body")?, number(item, "expires_at").ok()))
}

fn text(item: &Value, name: &str) -> Result<String, StoreError> {
    let text = item[name]["S"].as_str().map(str::to_owned);
    text.ok_or_else(|| StoreError::new(format!("DynamoDB's answer has no text {name}")))
}
