"""NVML asked directly, so that the daemon's readings are compared with somebody else's."""

import ctypes


class Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class Nvml:
    """Raises OSError where there is no library, RuntimeError where it does not work."""

    def __init__(self):
        self.library = ctypes.CDLL("libnvidia-ml.so.1")
        self.library.nvmlErrorString.restype = ctypes.c_char_p
        self.call("nvmlInit_v2")

    def call(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code != 0:
            raise RuntimeError(f"{name}: {self.library.nvmlErrorString(code).decode()} ({code})")

    def count(self):
        count = ctypes.c_uint()
        self.call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        return count.value

    def handle(self, index):
        handle = ctypes.c_void_p()
        self.call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    def uuid(self, index):
        text = ctypes.create_string_buffer(96)
        self.call("nvmlDeviceGetUUID", self.handle(index), text, ctypes.c_uint(96))
        return text.value.decode()

    def name(self, index):
        text = ctypes.create_string_buffer(96)
        self.call("nvmlDeviceGetName", self.handle(index), text, ctypes.c_uint(96))
        return text.value.decode()

    def memory(self, index):
        memory = Memory()
        self.call("nvmlDeviceGetMemoryInfo", self.handle(index), ctypes.byref(memory))
        return memory

    def driver(self):
        text = ctypes.create_string_buffer(80)
        self.call("nvmlSystemGetDriverVersion", text, ctypes.c_uint(80))
        return text.value.decode()
