//! The Janet VM on Ringspun's event loop.
