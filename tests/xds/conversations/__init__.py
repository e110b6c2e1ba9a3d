"""What clients of gRPC in other languages said to policyd, recorded, and the program that records it."""
