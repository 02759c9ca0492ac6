//! The grammar of selector texts.

use super::{Operator, Requirement, SelectorError, validate};
use crate::field::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Error,
    End,
    Close,
    Comma,
    Bang,
    Word,
    Open,
    Binary(Operator),
}

fn symbol(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Bang,
        "==" => Token::Binary(Operator::DoubleEquals),
        "=" => Token::Binary(Operator::Equals),
        ">" => Token::Binary(Operator::GreaterThan),
        "<" => Token::Binary(Operator::LessThan),
        "!=" => Token::Binary(Operator::NotEquals),
        "(" => Token::Open,
        _ => return None,
    })
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Words and symbols, the longest symbol first; `in` and `notin` are words until an operator is wanted.
fn scan(text: &str) -> Vec<(Token, &str)> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let (token, length) = if is_symbol(first) {
            match rest.get(..2).and_then(|two| symbol(two).map(|t| (t, 2))) {
                Some(found) => found,
                None => (symbol(&rest[..1]).unwrap_or(Token::Error), 1),
            }
        } else {
            let end = rest.find(|c| is_symbol(c) || is_space(c)).unwrap_or(rest.len());
            (Token::Word, end)
        };
        tokens.push((token, &rest[..length]));
        rest = rest[length..].trim_start_matches(is_space);
    }
    tokens.push((Token::End, ""));
    tokens
}

struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    at: usize,
}

fn fault<T>(text: String) -> Result<T, SelectorError> {
    Err(SelectorError(text))
}

pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: scan(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        let (token, word) = parser.peek();
        match token {
            Token::Word | Token::Bang => {}
            Token::End => return Ok(requirements),
            _ => return fault(format!("found '{word}', expected: !, identifier, or 'end of string'")),
        }
        let requirement =
            parser.requirement().map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
        requirements.push(requirement);
        match parser.next() {
            (Token::End, _) => return Ok(requirements),
            (Token::Comma, _) => {
                let (token, word) = parser.peek();
                if !matches!(token, Token::Word | Token::Bang) {
                    return fault(format!("found '{word}', expected: identifier after ','"));
                }
            }
            (_, word) => return fault(format!("found '{word}', expected: ',' or 'end of string'")),
        }
    }
}

impl<'a> Parser<'a> {
    fn peek(&self) -> (Token, &'a str) {
        self.tokens.get(self.at).copied().unwrap_or((Token::End, ""))
    }

    fn next(&mut self) -> (Token, &'a str) {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let absent = self.peek().0 == Token::Bang;
        if absent {
            self.at += 1;
        }
        let (token, key) = self.next();
        if token != Token::Word {
            return fault(format!("found '{key}', expected: identifier"));
        }
        if let Some(error) = validate::key(&Path::default(), key) {
            return fault(error.to_string());
        }
        if absent {
            return Requirement::new(key, Operator::DoesNotExist, vec![]);
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, vec![]);
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.value()?],
        };
        Requirement::new(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        match self.next() {
            (Token::Binary(operator), _) => Ok(operator),
            (Token::Word, "in") => Ok(Operator::In),
            (Token::Word, "notin") => Ok(Operator::NotIn),
            (_, word) => fault(format!("found '{word}', expected: in, notin, =, ==, !=, gt, lt")),
        }
    }

    /// The one value after `=`; nothing before a comma or the end is the empty value.
    fn value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            (Token::Word, word) => Ok(word.to_owned()),
            (_, word) => fault(format!("found '{word}', expected: identifier")),
        }
    }

    /// `(a, b)`; an empty place is the empty value.
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            (Token::Open, _) => {}
            (_, word) => return fault(format!("found '{word}' expected: '('")),
        }
        match self.peek() {
            (Token::Word | Token::Comma, _) => self.list(),
            (Token::Close, _) => {
                self.at += 1;
                Ok(vec![])
            }
            (_, word) => fault(format!("found '{word}', expected: ',', ')' or identifier")),
        }
    }

    fn list(&mut self) -> Result<Vec<String>, SelectorError> {
        let mut values = Vec::new();
        loop {
            // A place in the list: a word, or nothing.
            if self.peek().0 == Token::Word {
                values.push(self.next().1.to_owned());
            } else {
                values.push(String::new());
            }
            match self.next() {
                (Token::Comma, _) => match self.peek() {
                    (Token::Word | Token::Comma | Token::Close, _) => {}
                    (_, word) => return fault(format!("found '{word}', expected: ',', or identifier")),
                },
                (Token::Close, _) => return Ok(values),
                (_, word) => return fault(format!("found '{word}', expected: ',' or ')'")),
            }
        }
    }
}
