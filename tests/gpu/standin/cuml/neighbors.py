from sklearn.neighbors import KNeighborsClassifier as _Cpu

from cuml.base import Base, Interop, Probabilities


class KNeighborsClassifier(Interop, Probabilities, Base):
    cpu_class = _Cpu
