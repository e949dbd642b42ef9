//! A connection in memory: the client says all it has to say, in pieces, then
//! waits, and at last leaves.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The server's end of the connection.
pub struct Wire {
    said: Vec<u8>,
    at: usize,
    piece: usize,
    left: Rc<Cell<bool>>,
    moved: Rc<Cell<usize>>,
    told: Rc<RefCell<Vec<u8>>>,
}

impl Wire {
    /// The client will say this, so many bytes at once.
    pub fn new(said: Vec<u8>, piece: usize) -> Self {
        Self {
            said,
            at: 0,
            piece,
            left: Rc::default(),
            moved: Rc::default(),
            told: Rc::default(),
        }
    }

    /// What the client is told.
    pub fn told(&self) -> Rc<RefCell<Vec<u8>>> {
        self.told.clone()
    }

    /// How many bytes went either way.
    pub fn moved(&self) -> Rc<Cell<usize>> {
        self.moved.clone()
    }

    /// Whether the client leaves when it has said all.
    pub fn leave(&self) -> Rc<Cell<bool>> {
        self.left.clone()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.said[self.at..];
        let piece = rest.len().min(self.piece).min(into.remaining());
        if rest.is_empty() && !self.left.get() {
            // Whoever polls does so again without being woken.
            return Poll::Pending;
        }
        into.put_slice(&rest[..piece]);
        self.moved.update(|moved| moved + piece);
        self.at += piece;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.moved.update(|moved| moved + bytes.len());
        self.told.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
