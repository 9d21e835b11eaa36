from genloop.api.calls import evaluate as evaluate
from genloop.api.calls import generate as generate
from genloop.api.calls import load_judge as load_judge

__version__: str
