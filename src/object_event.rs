//! What is told of a Flux object as a Kubernetes Event, where an operator wants that.

use crate::flux::Target;

/// Tells of objects. Best effort: it never delays or fails a request.
pub trait ObjectEvents: Send + Sync {
    fn record(&self, event: ObjectEvent);
}

/// Something that an object's own page should say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEvent {
    pub target: Target,
    pub reason: ObjectEventReason,
    /// The rest of the sentence, for people.
    pub message: String,
}

/// The reasons, as `kubectl describe` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectEventReason {
    /// The API server has taken a request.
    ReconcileRequested,
    /// A delivery concerned the object, and it is suspended.
    ReconcileSkipped,
    /// Flux does not show what was pushed.
    RevisionNotObserved,
}

impl ObjectEventReason {
    pub fn as_str(self) -> &'static str {
        match self {
            ObjectEventReason::ReconcileRequested => "ReconcileRequested",
            ObjectEventReason::ReconcileSkipped => "ReconcileSkipped",
            ObjectEventReason::RevisionNotObserved => "RevisionNotObserved",
        }
    }

    /// `Normal` or `Warning`.
    pub fn severity(self) -> &'static str {
        match self {
            ObjectEventReason::ReconcileRequested | ObjectEventReason::ReconcileSkipped => "Normal",
            ObjectEventReason::RevisionNotObserved => "Warning",
        }
    }
}
