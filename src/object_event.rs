//! What is told of a Flux object as a Kubernetes Event, where an operator wants that.

use std::sync::Arc;

use crate::flux::Target;
use crate::trace_parent::TraceParent;

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
    /// The revision that was pushed, as Flux writes it: `main@sha1:…`.
    pub revision: Option<String>,
    /// The trace of the delivery.
    pub trace: Option<TraceParent>,
}

/// Tells several.
pub struct AllObjectEvents(pub Vec<Arc<dyn ObjectEvents>>);

impl ObjectEvents for AllObjectEvents {
    fn record(&self, event: ObjectEvent) {
        self.0.iter().for_each(|events| events.record(event.clone()));
    }
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
    /// The API server does not let flux-recv request the object.
    RequestForbidden,
    /// An endpoint that has reached the object is silent.
    EndpointSilent,
}

impl ObjectEventReason {
    pub fn as_str(self) -> &'static str {
        match self {
            ObjectEventReason::ReconcileRequested => "ReconcileRequested",
            ObjectEventReason::ReconcileSkipped => "ReconcileSkipped",
            ObjectEventReason::RevisionNotObserved => "RevisionNotObserved",
            ObjectEventReason::RequestForbidden => "RequestForbidden",
            ObjectEventReason::EndpointSilent => "EndpointSilent",
        }
    }

    /// `Normal` or `Warning`.
    pub fn severity(self) -> &'static str {
        match self {
            ObjectEventReason::ReconcileRequested | ObjectEventReason::ReconcileSkipped => "Normal",
            ObjectEventReason::RevisionNotObserved
            | ObjectEventReason::RequestForbidden
            | ObjectEventReason::EndpointSilent => "Warning",
        }
    }
}
