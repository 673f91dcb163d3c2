//! README is run: see the tests.
