"""Forward and backward passes over a behaviour: what is written, gradients at readers, running a circuit."""
