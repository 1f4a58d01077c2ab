"""Messages on the wire; *_pb2.py is made from the .proto files by `make proto`."""
