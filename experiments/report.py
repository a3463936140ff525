def render(folder):
    return "report"
