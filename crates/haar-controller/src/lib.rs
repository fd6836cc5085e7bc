//! The controller's shell: HTTP, auth, the engine loop, feed, events.
