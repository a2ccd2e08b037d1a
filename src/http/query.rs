//! A query's parameters, read.

use std::{borrow::Cow, ops::RangeInclusive};

use axum::http::Uri;

use crate::problem::{FieldError, Problem};

/// Objects in one answer, if the caller does not say how many.
const DEFAULT_LIMIT: u32 = 100;
/// Most of them.
pub(crate) const MOST: u32 = 500;

/// A query's parameters. Unknown ones are ignored.
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(crate) fn of(uri: &'a Uri) -> Self {
        Self(form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).collect())
    }

    /// A parameter, if it is given.
    ///
    /// # Errors
    /// 422 when it is given twice: which one was meant cannot be known.
    pub(crate) fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut given = self.0.iter().filter(|(found, _)| found == name).map(|(_, value)| &**value);
        match (given.next(), given.next()) {
            (_, Some(_)) => {
                Err(Problem::invalid(vec![FieldError::field(name, "must be given once at most")]))
            }
            (value, None) => Ok(value),
        }
    }

    /// How many objects to list.
    ///
    /// # Errors
    /// 422 when it is no such number.
    pub(crate) fn limit(&self) -> Result<u32, Problem> {
        Ok(self.number("limit", 1..=MOST)?.unwrap_or(DEFAULT_LIMIT))
    }

    /// A whole number within `range`.
    ///
    /// # Errors
    /// 422 when it is none.
    pub(crate) fn number(&self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, Problem> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        // Digits alone: Rust's own parser would take a sign too.
        let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = digits.and_then(|text| text.parse().ok()).filter(|number| range.contains(number));
        let expected = || format!("must be a whole number from {} to {}", range.start(), range.end());
        number.map(Some).ok_or_else(|| Problem::invalid(vec![FieldError::field(name, expected())]))
    }
}
