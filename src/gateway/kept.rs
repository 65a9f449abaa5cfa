//! What is left of calls that are given up before they have ended.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use http::request::Parts;

use super::Context;

/// A context that does not get lost. Where a call is given up before it has ended, because its client hung up, its time is
/// over or something panicked, it stays with the head of the request, for whoever gave the call up.
pub struct Kept(Option<Box<Context>>);

impl Kept {
    /// Keeps a context.
    pub fn new(context: Context) -> Kept {
        Kept(Some(Box::new(context)))
    }
}

impl Deref for Kept {
    type Target = Context;

    fn deref(&self) -> &Context {
        self.0.as_deref().expect("it is there until it is dropped")
    }
}

impl DerefMut for Kept {
    fn deref_mut(&mut self) -> &mut Context {
        self.0.as_deref_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(mut context) = self.0.take()
            && let Some(head) = context.head.take()
        {
            *head.given_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(Kept(Some(context)));
        }
    }
}

/// The head of a request. Shared, because the chain's filters can copy what they find in a request but not take it.
pub type Head = Arc<RequestHead>;

/// The head of a request, and what is left of its call if that was given up.
pub struct RequestHead {
    parts: Parts,
    given_up: Mutex<Option<Kept>>,
}

impl RequestHead {
    /// The context of the call, if that was given up before it had ended. It is handed out once.
    pub fn given_up(&self) -> Option<Kept> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl From<Parts> for RequestHead {
    fn from(parts: Parts) -> RequestHead {
        RequestHead { parts, given_up: Mutex::new(None) }
    }
}

impl Deref for RequestHead {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}
