//! JSON-RPC server kit and the storage sub-agent.
