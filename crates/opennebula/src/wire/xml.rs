//! A walk through the XML that oned puts into its answers: elements and texts, no
//! attributes, no DTD, no entities of its own.

use super::Malformed;
use super::decode::entity;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// How deep elements may be in each other; oned's own documents need 7.
const DEEPEST: usize = 64;

/// A document, and where we are in it.
pub(crate) struct Doc<'a> {
    reader: Reader<&'a [u8]>,
    depth: usize,
    /// The element that was opened last has no content and no closing tag.
    empty: bool,
}

/// What comes next in the text.
enum Token<'a> {
    Open(BytesStart<'a>),
    Close,
    Text(Cow<'a, str>),
}

impl<'a> Doc<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            reader: Reader::from_str(text),
            depth: 0,
            empty: false,
        }
    }

    /// Reads the outermost element, whose name is given, by its children. See
    /// [`Self::children`].
    pub(crate) fn root(
        self,
        name: &str,
        each: impl FnMut(&mut Self, &str) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.whole(name, |doc| doc.children(each))
    }

    /// The attributes of an element that hold one text. Of several of one name, the last.
    pub(crate) fn singles(&mut self) -> Result<BTreeMap<String, String>, Malformed> {
        let mut found = BTreeMap::new();
        self.children(|doc, name| {
            let name = name.to_owned();
            let (text, pairs) = doc.text_and_children()?;
            if pairs.is_empty() {
                found.insert(name, text);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Reads the outermost element, whose name is given, by what takes it as the current
    /// one.
    pub(crate) fn whole(
        mut self,
        name: &str,
        read: impl FnOnce(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        loop {
            match self.next()? {
                Token::Open(tag) if tag.name().as_ref() == name => break,
                Token::Text(text) if text.trim().is_empty() => {}
                Token::Open(_) | Token::Close | Token::Text(_) => {
                    return Err(Malformed::other(format!("it has no {name}")));
                }
            }
        }
        read(&mut self)?;
        loop {
            match self.reader.read_event().map_err(bad)? {
                Event::Eof => return Ok(()),
                Event::Text(text) if text.bytes().all(|byte| byte.is_ascii_whitespace()) => {}
                _ => return Err(Malformed::other(format!("something follows {name}"))),
            }
        }
    }

    /// Reads what is in the current element: `each` gets every child's name and must take
    /// the child by [`Self::children`], [`Self::text`] or [`Self::skip`].
    pub(crate) fn children(
        &mut self,
        mut each: impl FnMut(&mut Self, &str) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        loop {
            match self.next()? {
                Token::Open(tag) => each(self, tag.name().as_ref())?,
                Token::Close => return Ok(()),
                Token::Text(_) => {}
            }
        }
    }

    /// The text of the current element; elements in it are passed over.
    pub(crate) fn text(&mut self) -> Result<Cow<'a, str>, Malformed> {
        let mut whole = Cow::Borrowed("");
        loop {
            match self.next()? {
                Token::Text(piece) if whole.is_empty() => whole = piece,
                Token::Text(piece) => whole.to_mut().push_str(&piece),
                Token::Open(_) => self.skip()?,
                Token::Close => return Ok(whole),
            }
        }
    }

    /// The text of the current element, and the texts of the elements in it.
    pub(crate) fn text_and_children(&mut self) -> Result<(String, Vec<(String, String)>), Malformed> {
        let mut whole = String::new();
        let mut children = Vec::new();
        loop {
            match self.next()? {
                Token::Text(piece) => whole.push_str(&piece),
                Token::Open(tag) => {
                    let name = tag.name().as_ref().to_owned();
                    children.push((name, self.text()?.into_owned()));
                }
                Token::Close => return Ok((whole, children)),
            }
        }
    }

    /// The current element as a number; none if it is empty.
    pub(crate) fn number<N: std::str::FromStr>(&mut self, name: &str) -> Result<Option<N>, Malformed> {
        let text = self.text()?;
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            let start: String = text.chars().take(40).collect();
            Malformed::other(format!("{start:?} is no {name}"))
        })
    }

    /// Passes over the current element.
    pub(crate) fn skip(&mut self) -> Result<(), Malformed> {
        let outside = self.depth.saturating_sub(1);
        while self.depth > outside {
            self.step()?;
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Token<'a>, Malformed> {
        loop {
            match self.step()? {
                Event::Start(tag) | Event::Empty(tag) => return Ok(Token::Open(tag)),
                Event::End(_) => return Ok(Token::Close),
                Event::Text(text) => return Ok(Token::Text(text.into_inner())),
                Event::CData(text) => return Ok(Token::Text(text.into_inner())),
                Event::GeneralRef(name) => {
                    return match entity(&name) {
                        Some(c) => Ok(Token::Text(Cow::Owned(c.to_string()))),
                        None => Err(Malformed::other("it has an entity of its own")),
                    };
                }
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
                // `step` has refused them.
                Event::DocType(_) | Event::Eof => return Err(Malformed::CutOff),
            }
        }
    }

    /// The next event, with the depth kept. The end of the document and a DTD are errors.
    fn step(&mut self) -> Result<Event<'a>, Malformed> {
        if self.empty {
            self.empty = false;
            self.depth = self.depth.saturating_sub(1);
            return Ok(Event::End(quick_xml::events::BytesEnd::new("")));
        }
        let event = self.reader.read_event().map_err(bad)?;
        match &event {
            Event::Start(_) => self.depth += 1,
            Event::Empty(_) => {
                self.depth += 1;
                self.empty = true;
            }
            Event::End(_) => self.depth = self.depth.saturating_sub(1),
            Event::DocType(_) => return Err(Malformed::other("it has a DTD")),
            Event::Eof => return Err(Malformed::other("what it holds is cut off")),
            Event::Text(_)
            | Event::CData(_)
            | Event::GeneralRef(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_) => {}
        }
        if self.depth > DEEPEST {
            return Err(Malformed::other("too many elements in each other"));
        }
        Ok(event)
    }
}

fn bad(error: impl std::fmt::Display) -> Malformed {
    Malformed::other(format!("what it holds is not XML: {error}"))
}
