//! Label selectors: the text form of a scale's status, and the structured form of a metric's.
//!
//! Source: `k8s.io/apimachinery/pkg/labels/selector.go`, and `LabelSelector` of `pkg/apis/meta/v1`.

use std::{collections::BTreeMap, fmt};

/// What is asked of one label.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// A selector that was parsed: all its requirements must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(Vec<Requirement>);

impl Selector {
    /// Reads `app=web,tier in (front, back),!canary` and the like.
    ///
    /// # Errors
    /// Why it is not a selector, in Kubernetes' words.
    pub fn parse(text: &str) -> Result<Self, String> {
        Parser { tokens: lex(text), position: 0 }.parse().map(Self)
    }

    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            let is_among = value.is_some_and(|value| requirement.values.contains(value));
            match requirement.operator {
                Operator::In => is_among,
                Operator::NotIn => !is_among,
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
                Operator::GreaterThan => requirement.compares(value, |label, bound| label > bound),
                Operator::LessThan => requirement.compares(value, |label, bound| label < bound),
            }
        })
    }
}

impl Requirement {
    fn compares(&self, label: Option<&String>, holds: fn(i64, i64) -> bool) -> bool {
        let numbers =
            (label.and_then(|label| label.parse().ok()), self.values.first().and_then(|v| v.parse().ok()));
        matches!(numbers, (Some(label), Some(bound)) if holds(label, bound))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Error,
    End,
    Close,
    Comma,
    Not,
    Equals,
    GreaterThan,
    Identifier,
    In,
    LessThan,
    NotEquals,
    NotIn,
    Open,
}

type Token = (Kind, String);

fn kind_of(literal: &str) -> Option<Kind> {
    Some(match literal {
        ")" => Kind::Close,
        "," => Kind::Comma,
        "!" => Kind::Not,
        "=" | "==" => Kind::Equals,
        ">" => Kind::GreaterThan,
        "in" => Kind::In,
        "<" => Kind::LessThan,
        "!=" => Kind::NotEquals,
        "notin" => Kind::NotIn,
        "(" => Kind::Open,
        _ => return None,
    })
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

/// Source: `Lexer`. The last token is always the end.
fn lex(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let (token, length) = if is_special(first) { special(rest) } else { word(rest) };
        tokens.push(token);
        rest = rest[length..].trim_start_matches(is_space);
    }
    tokens.push((Kind::End, String::new()));
    tokens
}

fn word(text: &str) -> (Token, usize) {
    let length = text.find(|c| is_special(c) || is_space(c)).unwrap_or(text.len());
    let literal = &text[..length];
    ((kind_of(literal).unwrap_or(Kind::Identifier), literal.to_owned()), length)
}

/// The longest of the special tokens, which have one or two characters.
fn special(text: &str) -> (Token, usize) {
    let run = text.find(|c| !is_special(c)).unwrap_or(text.len());
    let found = (1..=run.min(2)).rev().find_map(|length| Some((kind_of(&text[..length])?, length)));
    match found {
        Some((kind, length)) => ((kind, text[..length].to_owned()), length),
        None => ((Kind::Error, format!("error expected: keyword found '{}'", &text[..run])), run),
    }
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
}

impl Parser {
    /// The next token. Where a value may be, `in` and `notin` are values.
    fn peek(&self, is_value: bool) -> Token {
        let (kind, literal) = self.tokens.get(self.position).cloned().unwrap_or((Kind::End, String::new()));
        if is_value && matches!(kind, Kind::In | Kind::NotIn) {
            return (Kind::Identifier, literal);
        }
        (kind, literal)
    }

    fn next(&mut self, is_value: bool) -> Token {
        let token = self.peek(is_value);
        self.position += 1;
        token
    }

    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek(true) {
                (Kind::Identifier | Kind::Not, _) => {
                    let requirement = self
                        .requirement()
                        .map_err(|error| format!("unable to parse requirement: {error}"))?;
                    requirements.push(requirement);
                    match self.next(true) {
                        (Kind::End, _) => return Ok(requirements),
                        (Kind::Comma, _) => {
                            let (kind, literal) = self.peek(true);
                            if !matches!(kind, Kind::Identifier | Kind::Not) {
                                return Err(format!("found '{literal}', expected: identifier after ','"));
                            }
                        }
                        (_, literal) => {
                            return Err(format!("found '{literal}', expected: ',' or 'end of string'"));
                        }
                    }
                }
                (Kind::End, _) => return Ok(requirements),
                (_, literal) => {
                    return Err(format!("found '{literal}', expected: !, identifier, or 'end of string'"));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut kind, mut key) = self.next(true);
        let is_negated = kind == Kind::Not;
        if is_negated {
            (kind, key) = self.next(true);
        }
        if kind != Kind::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        check_key(&key)?;
        if is_negated {
            return Ok(Requirement { key, operator: Operator::DoesNotExist, values: Vec::new() });
        }
        if matches!(self.peek(true), (Kind::End | Kind::Comma, _)) {
            return Ok(Requirement { key, operator: Operator::Exists, values: Vec::new() });
        }
        let (operator, values) = self.condition()?;
        for value in &values {
            check_value(value)?;
        }
        Ok(Requirement { key, operator, values })
    }

    fn condition(&mut self) -> Result<(Operator, Vec<String>), String> {
        let operator = match self.next(false) {
            (Kind::In, _) => return Ok((Operator::In, self.values()?)),
            (Kind::NotIn, _) => return Ok((Operator::NotIn, self.values()?)),
            (Kind::Equals, _) => Operator::In,
            (Kind::NotEquals, _) => Operator::NotIn,
            (Kind::GreaterThan, _) => Operator::GreaterThan,
            (Kind::LessThan, _) => Operator::LessThan,
            (_, literal) => {
                return Err(format!("found '{literal}', expected: in, notin, =, ==, !=, gt, lt"));
            }
        };
        Ok((operator, vec![self.value()?]))
    }

    fn value(&mut self) -> Result<String, String> {
        if matches!(self.peek(true), (Kind::End | Kind::Comma, _)) {
            return Ok(String::new());
        }
        match self.next(true) {
            (Kind::Identifier, literal) => Ok(literal),
            (_, literal) => Err(format!("found '{literal}', expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.next(true) {
            (Kind::Open, _) => {}
            (_, literal) => return Err(format!("found '{literal}' expected: '('")),
        }
        match self.peek(true) {
            (Kind::Identifier | Kind::Comma, _) => self.list(),
            (Kind::Close, _) => Err("for 'in', 'notin' operators, values set can't be empty".into()),
            (_, literal) => Err(format!("found '{literal}', expected: ',', ')' or identifier")),
        }
    }

    /// Values between parentheses; nothing before, after or between commas is the empty value.
    fn list(&mut self) -> Result<Vec<String>, String> {
        let mut values = Vec::new();
        let mut is_due = true;
        loop {
            match self.next(true) {
                (Kind::Identifier, literal) if is_due => {
                    values.push(literal);
                    is_due = false;
                }
                (Kind::Comma, _) => {
                    if is_due {
                        values.push(String::new());
                    }
                    is_due = true;
                }
                (Kind::Close, _) => {
                    if is_due {
                        values.push(String::new());
                    }
                    return Ok(values);
                }
                (_, literal) => return Err(format!("found '{literal}', expected: ',' or ')'")),
            }
        }
    }
}

/// A name as labels and annotations have it: up to 63 letters, digits and `-_.`, a letter or digit at both ends.
fn is_name(name: &str) -> bool {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= 63
        && is_end(name.chars().next())
        && is_end(name.chars().next_back())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn check_key(key: &str) -> Result<(), String> {
    let name = key.split_once('/').map_or(key, |(_, name)| name);
    if is_name(name) {
        Ok(())
    } else {
        Err(format!("key: Invalid value: {key:?}: it is not a qualified name"))
    }
}

fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_name(value) {
        return Ok(());
    }
    Err(format!("values: Invalid value: {value:?}: it is not a valid label value"))
}

/// A selector as manifests have it, kept as it is written, because messages quote it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    /// `matchLabels`.
    pub labels: BTreeMap<String, String>,
    /// `matchExpressions`: key, operator, values.
    pub expressions: Vec<(String, String, Vec<String>)>,
}

impl LabelSelector {
    /// The structured form of a text: equalities as labels, all else as expressions.
    ///
    /// # Errors
    /// Why it is not a selector.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut selector = Self::default();
        for Requirement { key, operator, values } in Selector::parse(text)?.0 {
            let operator = match operator {
                Operator::In => "In",
                Operator::NotIn => "NotIn",
                Operator::Exists => "Exists",
                Operator::DoesNotExist => "DoesNotExist",
                Operator::GreaterThan | Operator::LessThan => {
                    return Err("a label selector compares no numbers".into());
                }
            };
            match values.as_slice() {
                [value] if operator == "In" => drop(selector.labels.insert(key, value.clone())),
                _ => selector.expressions.push((key, operator.into(), values)),
            }
        }
        Ok(selector)
    }

    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.expressions.iter().all(|(key, operator, values)| {
                let value = labels.get(key);
                match operator.as_str() {
                    "In" => value.is_some_and(|value| values.contains(value)),
                    "NotIn" => !value.is_some_and(|value| values.contains(value)),
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
    }

    /// Source: `LabelSelectorAsSelector`, which refuses operators that it does not know.
    pub(super) fn check(&self) -> Result<(), String> {
        match self
            .expressions
            .iter()
            .find(|(_, operator, _)| !matches!(operator.as_str(), "In" | "NotIn" | "Exists" | "DoesNotExist"))
        {
            Some((_, operator, _)) => Err(format!("{operator:?} is not a valid label selector operator")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for LabelSelector {
    /// As Go's generated `String` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("&LabelSelector{MatchLabels:map[string]string{")?;
        for (key, value) in &self.labels {
            write!(f, "{key}: {value},")?;
        }
        f.write_str("},MatchExpressions:[]LabelSelectorRequirement{")?;
        for (key, operator, values) in &self.expressions {
            write!(
                f,
                "LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},",
                values.join(" ")
            )?;
        }
        f.write_str("},}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn a_selector_selects() {
        let web = labels(&[("app", "web"), ("tier", "front"), ("generation", "12")]);
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web, tier = front", true),
            ("app!=web", false),
            ("app!=api", true),
            ("app", true),
            ("!app", false),
            ("!canary", true),
            ("tier in (front,back)", true),
            ("tier notin (front, back)", false),
            ("canary notin (yes)", true),
            ("canary in (,yes)", false),
            ("generation>11", true),
            ("generation<12", false),
            ("app>1", false),
            ("in=web", false),
            ("example.com/app", false),
        ] {
            assert_eq!(Selector::parse(selector).map(|s| s.matches(&web)), Ok(expected), "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_in_kubernetes_words() {
        for (selector, error) in [
            (
                "cheddar cheese",
                "unable to parse requirement: found 'cheese', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("=web", "found '=', expected: !, identifier, or 'end of string'"),
            ("app=web,", "found '', expected: identifier after ','"),
            ("app=web tier", "found 'tier', expected: ',' or 'end of string'"),
            ("app in web", "unable to parse requirement: found 'web' expected: '('"),
            ("app=(", "unable to parse requirement: found '(', expected: identifier"),
            ("app in (web", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("!=web", "found '!=', expected: !, identifier, or 'end of string'"),
        ] {
            assert_eq!(Selector::parse(selector), Err(error.into()), "{selector}");
        }
        assert!(Selector::parse("-app=web").is_err());
        assert!(Selector::parse("app=-web").is_err());
        assert!(Selector::parse("app in ()").is_err());
    }

    #[test]
    fn a_structured_selector_prints_as_go_prints_it() {
        assert_eq!(
            LabelSelector::default().to_string(),
            "&LabelSelector{MatchLabels:map[string]string{},MatchExpressions:[]LabelSelectorRequirement{},}"
        );
        assert_eq!(
            LabelSelector::parse("queue=jobs,tier in (a,b)").unwrap().to_string(),
            "&LabelSelector{MatchLabels:map[string]string{queue: jobs,},MatchExpressions:[]LabelSelectorRequirement{\
             LabelSelectorRequirement{Key:tier,Operator:In,Values:[a b],},},}"
        );
    }
}
